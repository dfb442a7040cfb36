"""A model with adapters worked in: offered like any other of one's own, and saying what it came of."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from studio.domain.errors import Incompatible, InvalidRequest, NotFound
from studio.domain.merging import MERGED_FILE
from studio.domain.tags import AdapterUse
from studio.services import Services, open_services
from studio.settings import Settings
from tests.studio.adapter_files import adapter_file
from tests.studio.conftest import Cli

PROMPT = "a red circle on a white background"
INK = AdapterUse(adapter="ink", lora_scale=0.6)


@pytest.fixture
def inked(services: Services, tmp_path: Path) -> Services:
    return with_ink(services, tmp_path)


def with_ink(services: Services, tmp_path: Path) -> Services:
    """Services whose store has one adapter, `ink`."""
    store = services.adapters.store
    store.add(adapter_file(tmp_path / "ink.safetensors", metadata={"modelspec.license": "CC BY 4.0"}))
    store.update("ink", {"trigger_words": ("inkwash",)})
    return services


def pixels(services: Services, prompt: str, checkpoint: str) -> "np.typing.NDArray[np.float64]":
    settings = {"checkpoint": checkpoint, "seed": 5, "num_inference_steps": 6}
    (record,) = services.generate(prompt, **settings)
    with Image.open(services.gallery.path(record)) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float64)


@pytest.fixture
def drawing(settings: Settings) -> Iterator[Services]:
    """With an engine of their own: it knows what is in the models folder."""
    with open_services(settings) as opened:
        yield opened


def test_it_is_offered_says_what_it_is_and_draws_as_both_do(drawing: Services, tmp_path: Path) -> None:
    inked = with_ink(drawing, tmp_path)
    added = inked.checkpoint_merging.merge("pocket-sd15", [INK], "Inked pocket")
    row = inked.catalogue.checkpoint(added.checkpoint.id)
    assert (row.id, row.title, row.family, row.is_own) == ("Inked pocket", "Inked pocket", "sd15", True)
    assert row.note == "Pocket SD 1.5 with ink × 0.6 worked in. Say “inkwash”."
    assert row.licence == "MIT; CC BY 4.0"
    base = inked.catalogue.checkpoint("pocket-sd15")
    alike = ("native_size", "min_size", "default_steps", "default_guidance", "default_scheduler", "is_pocket")
    assert [getattr(row, name) for name in alike] == [getattr(base, name) for name in alike]
    told = json.loads((inked.settings.models_dir / row.id / MERGED_FILE).read_text())
    adapter = inked.adapters.store.inspect("ink").adapter
    assert adapter and told["base"] == "pocket-sd15"
    assert told["adapters"] == [
        {"adapter": "ink", "lora_scale": 0.6, "sha256": adapter.tensor_sha256, "trigger_words": ["inkwash"]}
    ]
    plain, both, merged = (
        pixels(inked, prompt, model)
        for prompt, model in (
            (PROMPT, "pocket-sd15"),
            (f"{PROMPT} <lora:ink:0.6>", "pocket-sd15"),
            (PROMPT, row.id),
        )
    )
    # Its weights are float16, as the model's are: what they are rounded by moves hardly any pixel by a level of 255.
    assert np.abs(merged - both).mean() < 0.1 < 1 < np.abs(both - plain).mean()


def test_one_may_be_made_of_one_that_was_made(inked: Services) -> None:
    inked.checkpoint_merging.merge("pocket-sd15", [INK], "once")
    again = inked.checkpoint_merging.merge("once", [INK], "once").checkpoint
    assert again.id == "once-2" and again.note.startswith("once with ink × 0.6 worked in.")


def test_what_another_program_calls_the_same_is_no_concern(inked: Services) -> None:
    inked.checkpoint_merging.merge("pocket-sd15", [INK], "odd")
    (inked.settings.models_dir / "odd" / MERGED_FILE).write_text('{"base": ["pocket-sd15"]}')
    inked.own_checkpoints.__init__(inked.settings.models_dir, inked.catalogue)  # type: ignore[misc]
    assert inked.own_checkpoints.refresh() == ()
    assert inked.catalogue.checkpoint("odd").note == "A checkpoint of SD 1.5 from the models folder."


@pytest.mark.parametrize(
    ("checkpoint", "use", "name", "error", "said"),
    [
        ("pocket-sd15", INK, " ", InvalidRequest, "The new model has no name."),
        ("pocket-sd15", AdapterUse(adapter="ink", lora_scale=0), "new", InvalidRequest, "would be the old one"),
        ("pocket-sd15", AdapterUse(adapter="nobody"), "new", NotFound, "no adapter called 'nobody'"),
        ("pocket-sd15", AdapterUse(adapter="large"), "new", Incompatible, "is made for SDXL; Pocket SD 1.5"),
        ("pocket-sd15", AdapterUse(adapter="whole"), "new", Incompatible, "whole weight differences"),
        ("sd15", INK, "new", NotFound, "Stable Diffusion 1.5 is not on this machine."),
        ("nothing", INK, "new", NotFound, "no model called 'nothing'"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    inked: Services, tmp_path: Path, checkpoint: str, use: AdapterUse, name: str, error: type[Exception], said: str
) -> None:
    inked.adapters.store.add(adapter_file(tmp_path / "large.safetensors", width=2048))
    whole = inked.settings.adapters_dir / "whole.safetensors"
    save_file({"lora_unet_conv_in.diff": torch.zeros(8, 4, 3, 3)}, whole)
    with pytest.raises(error, match=said):
        inked.checkpoint_merging.merge(checkpoint, [use], name)
    models = inked.settings.models_dir
    assert not models.exists() or list(models.iterdir()) == []


def test_the_command_line_merges_and_draws_with_it(cli: Cli, data_dir: Path, tmp_path: Path) -> None:
    for name in ("ink", "gold"):
        path = adapter_file(tmp_path / f"{name}.safetensors", scale=len(name))
        assert cli("adapters", "add", str(path))[0] == 0
    code, out, said = cli("models", "merge", "pocket-sd15", "ink:0.5", "gold:0:0.3", "--name", "both")
    assert (code, out) == (0, "both\n")
    assert "unet …" in said and "both is in the list of models: SD 1.5; it predicts noise." in said
    assert "both" in cli("models")[1]
    code, out, said = cli("models", "merge", "pocket-sd15", "ink:much", "--name", "more")
    assert (code, out) == (2, "") and "a scale of 'much'" in said
    assert [path.name for path in (data_dir / "models").iterdir()] == ["both"]
