"""What the studio says of weights and devices without torch is what the engine says once it has them."""

import os
import shutil
from pathlib import Path

import pytest

from engines.base import Engine, EngineState
from engines.identity import agree, conditions, described_at, find_place, foreseen, weights_sha256, weights_stamp
from studio.domain.catalogue import Catalogue, Checkpoint
from studio.domain.request import GenerationRequest
from studio.settings import PROJECT_ROOT

GPU = EngineState(device="cuda", dtype="float16", loaded=())


@pytest.fixture
def pocket(catalogue: Catalogue) -> Checkpoint:
    return catalogue.checkpoint("pocket-sd15")


@pytest.fixture
def folder(pocket: Checkpoint, tmp_path: Path) -> Path:
    """A copy of the embedded checkpoint."""
    embedded = find_place(pocket, PROJECT_ROOT, tmp_path / "models")
    assert embedded is not None
    return shutil.copytree(embedded, tmp_path / "models" / pocket.id)


def test_a_picture_says_what_was_foreseen_of_it(engine: Engine, pocket: Checkpoint, catalogue: Catalogue) -> None:
    recipe = catalogue.resolve(GenerationRequest(prompt="a red circle", num_inference_steps=1, seed=1))
    picture = engine.generate(recipe, (recipe.prompt, ""), cancelled=lambda: False, on_step=lambda step: None)
    told = foreseen(pocket, engine.state().device, "auto")
    assert told is not None
    for state in (told, engine.state()):
        assert agree(picture.environment, conditions(pocket, state))
    place = find_place(pocket, PROJECT_ROOT, PROJECT_ROOT / "nowhere")
    assert place is not None
    assert weights_sha256(place) == picture.environment["checkpoint_sha256"]


def test_a_second_encoder_counts(folder: Path) -> None:
    one_encoder = weights_sha256(folder)
    shutil.copytree(folder / "text_encoder", folder / "text_encoder_2")
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace('"text_encoder":', '"text_encoder_2": ["a", "b"],\n"text_encoder":'))
    assert weights_sha256(folder) != one_encoder


def test_weights_that_were_exchanged_without_a_trace_in_size_and_date_are_noticed(folder: Path) -> None:
    before = weights_stamp(folder)
    assert weights_stamp(folder) == before
    weights = next((folder / "unet").glob("*.safetensors"))
    status, content = weights.stat(), bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (weights.stat().st_size, weights.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert weights_stamp(folder) != before


def test_settings_that_were_written_to_are_noticed(folder: Path) -> None:
    before = described_at(folder)
    config = folder / "scheduler" / "scheduler_config.json"
    os.utime(config, (before + 100, before + 100))
    assert described_at(folder) == before + 100
    assert described_at(next((folder / "unet").glob("*.safetensors"))) == 0


def test_only_what_is_sure_is_foreseen(
    pocket: Checkpoint, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = catalogue.checkpoint("sd15")
    monkeypatch.setattr("engines.identity.version", lambda name: "2.13.0")
    assert foreseen(pocket, "auto", "auto") is None
    assert foreseen(pocket, "cuda", "auto") == EngineState(device="cuda", dtype="float32", loaded=())
    assert foreseen(large, "cuda", "auto") is None
    assert foreseen(large, "cuda", "float16") == GPU
    monkeypatch.setattr("engines.identity.version", lambda name: "2.13.0+cpu")
    assert foreseen(pocket, "auto", "auto") == EngineState(device="cpu", dtype="float32", loaded=())


@pytest.mark.parametrize(
    ("changes", "agrees"),
    [
        ({}, True),
        ({"device": "cuda:1"}, True),
        ({"device": "cpu"}, False),
        ({"dtype": "float32"}, False),
        ({"torch": "1.0"}, False),
        ({"threads": "64"}, True),
    ],
)
def test_the_kind_of_device_the_format_and_the_versions_count(
    catalogue: Catalogue, changes: dict[str, str], agrees: bool
) -> None:
    now = conditions(catalogue.checkpoint("sd15"), GPU)
    assert agree({**now, "device": "cuda:0", **changes}, now) is agrees
    assert not agree({}, now)
