"""Adapters worked into a checkpoint's weights: it draws what both draw together, whole or not at all."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from engines import full_size, loading
from engines.adapters import ready, target_of
from engines.attaching import attached
from engines.base import ChosenAdapter
from engines.loading import Loaded, load
from engines.merged_checkpoint import write_merged
from engines.soundness import inspect
from lora_registry.weights import load_weights
from studio.domain.catalogue import Catalogue, Checkpoint
from studio.domain.errors import Incompatible, StorageFailed
from studio.domain.tags import AdapterUse
from tests.engines.original import save_original
from tests.engines.small import save_untrained
from tests.engines.test_adapters import adapter_file

POCKET = Path(full_size.__file__).with_name("pocket") / "weights" / "pocket-sd15"


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model in float32, with numbers that float16 does not hold."""
    folder = tmp_path_factory.mktemp("wide") / "wide"
    shutil.copytree(POCKET, folder)
    for path in folder.rglob("*.safetensors"):
        generator = torch.Generator().manual_seed(0)
        tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
        for tensor in tensors.values():
            tensor *= 1 + 1e-4 * torch.rand(tensor.shape, generator=generator)
        save_file(tensors, path, {"format": "pt"})
    return folder


@pytest.fixture
def row(catalogue: Catalogue) -> Checkpoint:
    return catalogue.checkpoint("pocket-sd15")


@pytest.fixture
def chosen(row: Checkpoint, tmp_path: Path) -> list[ChosenAdapter]:
    """Two adapters of attention, projections, kernels and the text encoder; of the second less of the text."""
    loaded = load(row, POCKET, "cpu", torch.float32)
    uses = [
        AdapterUse(adapter="first", lora_scale=0.8),
        AdapterUse(adapter="second", lora_scale=-0.5, text_encoder_scale=0.3),
    ]
    files = [adapter_file(loaded, tmp_path / f"{use.adapter}.safetensors", seed=n) for n, use in enumerate(uses)]
    return [ChosenAdapter(use=use, path=path) for use, path in zip(uses, files, strict=True)]


def latents(pipeline: Any, size: int = 64) -> Tensor:
    """What three steps come to, before they are decoded. With little guidance: more of it enlarges the last bits, which
    depend on the order of sums."""
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(4)
    asked: dict[str, Any] = {
        "num_inference_steps": 3,
        "guidance_scale": 2,
        "height": size,
        "width": size,
        "output_type": "latent",
    }
    with torch.inference_mode():
        return pipeline("a red star", generator=generator, **asked).images


def together(loaded: Loaded, chosen: list[ChosenAdapter]) -> Tensor:
    """What a checkpoint draws with adapters in the prompt."""
    adapters = [ready(item.use, load_weights(item.path, target_of(loaded))) for item in chosen]
    with attached(loaded.pipeline, adapters):
        return latents(loaded.pipeline)


def farthest(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def test_in_float32_it_draws_what_both_draw_together(
    wide: Path, row: Checkpoint, chosen: list[ChosenAdapter], tmp_path: Path
) -> None:
    parts: list[str] = []
    write_merged(row, wide, chosen, tmp_path / "out", "{}", on_part=parts.append)
    assert {"unet", "text_encoder", "vae"} <= set(parts)
    loaded = load(row, wide, "cpu", torch.float32)
    plain, expected = latents(loaded.pipeline), together(loaded, chosen)
    theirs = DiffusionPipeline.from_pretrained(tmp_path / "out", dtype=torch.float32, use_safetensors=True)
    theirs.scheduler = loaded.pipeline.scheduler
    assert farthest(plain, expected) > 1e-2
    assert farthest(latents(theirs), expected) <= 1e-4
    unet = load_file(next((tmp_path / "out" / "unet").glob("*.safetensors")))
    assert {tensor.dtype for tensor in unet.values()} == {torch.float32}


def test_in_float16_weights_are_those_of_the_sum_to_the_nearest(
    row: Checkpoint, chosen: list[ChosenAdapter], tmp_path: Path
) -> None:
    """Each weight is rounded to float16, a 2⁻¹¹ of its size; what no adapter changes stays as it is to the bit."""
    write_merged(row, POCKET, chosen, tmp_path / "out", "{}")
    loaded = load(row, POCKET, "cpu", torch.float32)
    weights = [load_weights(item.path, target_of(loaded)) for item in chosen]
    changed = {f"{path}.weight" for of_file in weights for path in of_file["unet"]}
    seen = set()
    for before in sorted((POCKET / "unet").glob("*.safetensors")):
        old, new = load_file(before), load_file(tmp_path / "out" / "unet" / before.name)
        assert list(old) == list(new)
        for name, tensor in old.items():
            assert new[name].dtype == torch.float16
            if name not in changed:
                assert torch.equal(new[name], tensor)
                continue
            seen.add(name)
            path = name.removesuffix(".weight")
            terms = zip(chosen, weights, strict=True)
            exact = tensor.float() + sum(
                i.use.lora_scale * w["unet"][path].product().reshape(tensor.shape) for i, w in terms
            )
            assert torch.all((new[name].float() - exact).abs() <= 2**-11 * exact.abs() + 2**-24)
    assert seen == changed
    merged = load(row, tmp_path / "out", "cpu", torch.float32)
    expected = together(loaded, chosen)
    assert farthest(latents(merged.pipeline), expected) < 0.05 * farthest(latents(loaded.pipeline), expected)


@pytest.mark.parametrize("family", ["sd21", "sdxl"])
def test_a_single_file_becomes_a_folder_that_draws_the_same(
    tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    row, folder, path = catalogue.checkpoint(family), tmp_path / family, tmp_path / "from a friend.safetensors"
    save_untrained(family, folder)
    plain = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    save_original(plain, path)
    monkeypatch.setattr(full_size, "FAMILIES_FOLDER", tmp_path)
    tokenizers = {name: part for name, part in plain.components.items() if name.startswith("tokenizer")}
    monkeypatch.setattr(loading, "family_tokenizers", lambda *_: tokenizers)
    loaded = load(row, path, "cpu", torch.float32)
    file = adapter_file(loaded, tmp_path / "a.safetensors", parts=("unet",))
    chosen = [ChosenAdapter(use=AdapterUse(adapter="a", lora_scale=0.7), path=file)]
    write_merged(row, path, chosen, tmp_path / "out", "{}")
    assert inspect(tmp_path / "out").family == family
    assert inspect(tmp_path / "out").prediction_type == loaded.prediction_type
    theirs = DiffusionPipeline.from_pretrained(tmp_path / "out", dtype=torch.float32, use_safetensors=True)
    theirs.scheduler = loaded.pipeline.scheduler
    expected = together(loaded, chosen)
    assert farthest(latents(loaded.pipeline), expected) > 1e-2
    assert farthest(latents(theirs), expected) <= 1e-4
    assert not list(tmp_path.glob("*.part"))


def test_a_dora_is_worked_in_as_it_acts(wide: Path, row: Checkpoint, tmp_path: Path) -> None:
    name = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    generator = torch.Generator().manual_seed(2)
    tensors = {
        f"{name}.lora_down.weight": torch.randn(2, 128, generator=generator) * 0.3,
        f"{name}.lora_up.weight": torch.randn(128, 2, generator=generator) * 0.3,
        f"{name}.alpha": torch.tensor(2.0),
        f"{name}.dora_scale": 1 + torch.rand(128, 1, generator=generator),
    }
    save_file(tensors, tmp_path / "dora.safetensors")
    chosen = [ChosenAdapter(use=AdapterUse(adapter="dora", lora_scale=0.9), path=tmp_path / "dora.safetensors")]
    write_merged(row, wide, chosen, tmp_path / "out", "{}")
    loaded = load(row, wide, "cpu", torch.float32)
    expected = together(loaded, chosen)
    assert farthest(latents(loaded.pipeline), expected) > 1e-3
    assert farthest(latents(load(row, tmp_path / "out", "cpu", torch.float32).pipeline), expected) <= 1e-4


def test_what_stops_it_leaves_nothing(row: Checkpoint, chosen: list[ChosenAdapter], tmp_path: Path) -> None:
    def interrupt(part: str) -> None:
        if part == "vae":
            raise KeyboardInterrupt

    models = tmp_path / "models"
    with pytest.raises(KeyboardInterrupt):
        write_merged(row, POCKET, chosen, models / "out", "{}", on_part=interrupt)
    assert list(models.iterdir()) == []
    (models / "out.part" / "unet").mkdir(parents=True)  # as a kill leaves it
    (models / "out.part" / "unet" / "stray.safetensors").write_bytes(b"half")
    write_merged(row, POCKET, chosen, models / "out", json.dumps({"a": 1}))
    assert [path.name for path in models.iterdir()] == ["out"]
    assert not (models / "out" / "unet" / "stray.safetensors").exists()


def test_weights_that_their_type_cannot_hold_are_refused(row: Checkpoint, tmp_path: Path) -> None:
    loaded = load(row, POCKET, "cpu", torch.float32)
    path = adapter_file(loaded, tmp_path / "huge.safetensors", parts=("unet",))
    save_file({name: t * 1e7 if "lora_up" in name else t for name, t in load_file(path).items()}, path)
    chosen = [ChosenAdapter(use=AdapterUse(adapter="huge", lora_scale=4), path=path)]
    with pytest.raises(Incompatible, match="larger than F16 numbers can be"):
        write_merged(row, POCKET, chosen, tmp_path / "models" / "out", "{}")
    assert list((tmp_path / "models").iterdir()) == []


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    row: Checkpoint, chosen: list[ChosenAdapter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=300_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageFailed, match=r"too full for out: it needs 0\.5 GB, 0\.3 GB are free"):
        write_merged(row, POCKET, chosen, tmp_path / "models" / "out", "{}")
    assert list((tmp_path / "models").iterdir()) == []
