"""Accelerators of one's own: what their files say of themselves holds; what says nothing is of the LCM kind."""

import json
from pathlib import Path

import pytest

from studio.domain.errors import CorruptModel, Incompatible, NotFound
from studio.domain.sampling_rules import RULES_KEY
from studio.services import Services
from tests.studio.adapter_files import adapter_file
from tests.studio.conftest import Cli

RULES = {"checkpoint": "pocket-sd15", "grid": "trailing", "trained_steps": [1, 2], "default_steps": 2, "licence": "MIT"}


def file(tmp_path: Path, name: str = "mine", width: int = 128, **metadata: str) -> Path:
    return adapter_file(tmp_path / f"{name}.safetensors", width, 0.3, metadata)


def test_a_file_that_states_its_rules_is_sampled_by_them(services: Services, tmp_path: Path) -> None:
    source = file(tmp_path, **{RULES_KEY: json.dumps(RULES)})
    row = services.own_accelerators.add(source)
    assert (row.id, row.family, row.checkpoint, row.licence) == ("mine", "sd15", "pocket-sd15", "MIT")
    (record,) = services.generate("a red star", seed=3, accelerator="mine")
    assert record.recipe.num_inference_steps == 2
    assert record.environment["accelerator"].startswith("mine: ")
    assert services.own_accelerators.add(source).id == "mine"
    fitting = services.catalogue.accelerators_for(services.catalogue.checkpoint("pocket-sd15"))
    assert [row.id for row in fitting] == ["flash-pocket-sd15", "mine"]


def test_one_that_says_nothing_is_taken_for_an_lcm_adapter_of_its_family(services: Services, tmp_path: Path) -> None:
    row = services.own_accelerators.add(file(tmp_path, "lcm of mine", width=768))
    assert (row.family, row.checkpoint, row.scheduler, row.grid) == ("sd15", None, "lcm", "lcm")
    assert row.trained_steps == (2, 3, 4, 5, 6, 7, 8)
    assert row in services.catalogue.accelerators_for(services.catalogue.checkpoint("sd15"))


@pytest.mark.parametrize("stated", ["no json", json.dumps({"scheduler": "nope"}), json.dumps({"trained_steps": []})])
def test_rules_that_make_no_sense_are_not_followed(services: Services, tmp_path: Path, stated: str) -> None:
    assert services.own_accelerators.add(file(tmp_path, width=768, **{RULES_KEY: stated})).scheduler == "lcm"


def test_what_fits_nothing_is_refused_and_not_kept(services: Services, tmp_path: Path) -> None:
    with pytest.raises(Incompatible, match="does not say for which models"):
        services.own_accelerators.add(file(tmp_path))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing")
    with pytest.raises(CorruptModel):
        services.own_accelerators.add(broken)
    with pytest.raises(NotFound):
        services.own_accelerators.add(tmp_path / "gone.safetensors")
    assert list(services.settings.accelerators_dir.glob("*.safetensors")) == []


def test_the_command_line_takes_a_file(cli: Cli, data_dir: Path, tmp_path: Path) -> None:
    source = file(tmp_path, **{RULES_KEY: json.dumps(RULES)})
    code, stdout, stderr = cli(
        "flash", "a red star", "--adapter", str(source), "--steps", "1", "--num", "1", "--seed", "1"
    )
    assert code == 0, stderr
    assert stdout.strip().endswith(".png")
    assert (data_dir / "accelerators" / "mine.safetensors").is_file()
    code, _, stderr = cli("generate", "a red star", "--accelerator", "mine", "--seed", "1")
    assert code == 0, stderr
