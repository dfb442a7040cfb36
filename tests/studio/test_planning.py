"""What a picture will take is told before it is made: on the command line, to the library, and for GPUs of any size."""

import json
from pathlib import Path

import pytest

from studio.cli.main import main
from studio.domain.catalogue import Catalogue
from studio.domain.errors import InvalidRequest
from studio.domain.request import GenerationRequest
from studio.generation import EngineHolder
from studio.planning import PlanningService
from studio.services import Services
from studio.settings import Settings


def test_a_plan_names_what_it_takes_and_what_is_free(services: Services) -> None:
    plan = services.planning.plan(GenerationRequest(prompt="a red circle"))
    assert plan.fits and plan.placement == "resident" and not plan.savings
    assert 50e6 < plan.needed_bytes < 500e6 < plan.free_bytes
    assert str(plan).startswith("On the CPU in float32: about 0.1 GB of the ")


def test_larger_pictures_take_more(services: Services) -> None:
    def needed(size: int) -> int:
        request = GenerationRequest(prompt="a harbour", checkpoint="sd15", width=size, height=size)
        return services.planning.plan(request).needed_bytes

    assert needed(512) < needed(768) < needed(1024)


def test_nothing_is_loaded_to_tell_of_gpus(catalogue: Catalogue, settings: Settings) -> None:
    def load() -> None:
        raise AssertionError("the engine is not needed")

    planning = PlanningService(catalogue, settings, EngineHolder(load))
    request = GenerationRequest(prompt="a fox", checkpoint="sdxl")
    assert planning.plan_if_known(request) is None
    placements = {size: plan.placement for size, plan in planning.on_gpus(request).items()}
    assert placements[24] == "resident" and placements[4] == "sequential_offload"
    with pytest.raises(InvalidRequest):
        planning.on_gpus(GenerationRequest(prompt="a fox", checkpoint="none"))


def test_a_plan_can_be_insisted_on_by_settings(catalogue: Catalogue, tmp_path: Path) -> None:
    from studio.services import load_engine

    settings = Settings(data_dir=tmp_path, offline=True, memory_gb=3, placement="mapped", dtype="bfloat16")
    planning = PlanningService(catalogue, settings, EngineHolder(lambda: load_engine(settings, catalogue)))
    plan = planning.plan(GenerationRequest(prompt="a fox", checkpoint="sdxl"))
    assert plan.placement == "mapped" and plan.free_bytes < 3 * 2**30


def test_the_command_line_prints_predicted_against_free_memory(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLASH_STUDIO_DATA_DIR", str(tmp_path))
    assert main(["generate", "a fox", "--model", "sdxl", "--estimate-vram"]) == 0
    told = capfd.readouterr().out
    assert "SDXL base 1.0, 1024 × 1024 px" in told and "that are free" in told
    assert "  12 GB: everything in memory" in told
    assert main(["generate", "a fox", "--model", "sd15", "--width", "768", "--estimate-vram", "--json"]) == 0
    values = json.loads(capfd.readouterr().out)
    assert values["here"]["needed_bytes"] > 1e9
    assert values["on_gpus"]["24 GB"]["fits"] is True
    assert not (tmp_path / "images").exists(), "nothing is made"
