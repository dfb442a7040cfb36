"""A checkpoint is looked at before anything is opened, and whatever could lead to a pickle is refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from engines.loading import load
from engines.soundness import inspect, json_object
from studio.domain.catalogue import Catalogue
from studio.domain.errors import CorruptModel, Incompatible, NotFound, StorageFailed, StudioError
from studio.settings import PROJECT_ROOT
from tests import pickles
from tests.engines.small import save_untrained
from tests.engines.test_detection import original, saved

POCKET = PROJECT_ROOT / "engines/pocket/weights/pocket-sd15"


def copy_of_pocket(folder: Path) -> Path:
    """The embedded model with links for weights: what is written into it must not be those."""

    def copy(source: str, target: str) -> None:
        (os.symlink if source.endswith(".safetensors") else shutil.copyfile)(source, target)

    shutil.copytree(POCKET, folder, copy_function=copy)
    return folder


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy_of_pocket(tmp_path / "mine")


def test_a_sound_folder_tells_its_family_and_prediction(tmp_path: Path, folder: Path) -> None:
    assert (inspect(folder).family, inspect(folder).prediction_type) == ("sd15", "epsilon")
    change(folder / "scheduler" / "scheduler_config.json", prediction_type=["epsilon"])
    assert inspect(folder).prediction_type is None
    save_untrained("sdxl", tmp_path / "large")
    assert inspect(tmp_path / "large").family == "sdxl"


def test_a_sound_file_does_too(tmp_path: Path) -> None:
    assert inspect(saved(tmp_path / "x.safetensors", original("sd21"))).family == "sd21"


def names_of_a_pickle(folder: Path, part: str, stem: str) -> None:
    (folder / part / "evil.bin").write_bytes(b"\x80\x02")
    index = {"metadata": {}, "weight_map": {"conv_in.weight": "evil.bin"}}
    (folder / part / f"{stem}.safetensors.index.json").write_text(json.dumps(index))


def odd_index(folder: Path, weight_map: object) -> None:
    change(folder / "unet" / "diffusion_pytorch_model.safetensors.index.json", weight_map=weight_map)


def without_shard(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model-00002-of-00003.safetensors").unlink()


def only_half(folder: Path) -> None:
    (folder / "vae" / "diffusion_pytorch_model.safetensors").rename(folder / "vae" / "vae.fp16.safetensors")


def only_a_pickle(folder: Path) -> None:
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x02")


@pytest.mark.parametrize(
    ("spoil", "error", "said"),
    [
        (lambda f: names_of_a_pickle(f, "unet", "diffusion_pytorch_model"), CorruptModel, "names 'evil.bin', no .safe"),
        (lambda f: names_of_a_pickle(f, "text_encoder", "model"), CorruptModel, "mine/text_encoder/model.safetensors"),
        (lambda f: odd_index(f, {"a": "../../vae/evil.safetensors"}), CorruptModel, "beside it"),
        (lambda f: odd_index(f, {"a": ["x.safetensors"]}), CorruptModel, "beside it"),
        (lambda f: odd_index(f, []), CorruptModel, "names no weights"),
        (without_shard, CorruptModel, "lacks diffusion_pytorch_model-00002-of-00003.safetensors"),
        (
            lambda f: change(f / "text_encoder" / "config.json", transformers_weights="adapter_model.bin"),
            CorruptModel,
            "mine/text_encoder/config.json names a file of weights to open instead.",
        ),
        (
            lambda f: change(f / "text_encoder" / "config.json", text_config={"transformers_weights": "x.bin"}),
            CorruptModel,
            "to open instead",
        ),
        (lambda f: (f / "text_encoder/adapter_config.json").write_text("{}"), CorruptModel, "leads to another model"),
        (lambda f: (f / "unet/config.json").write_text("{"), CorruptModel, "no config.json that can be read"),
        (only_half, CorruptModel, "If vae.fp16.safetensors holds its weights, give it that name."),
        (only_a_pickle, CorruptModel, "mine/vae only has diffusion_pytorch_model.bin, a pickle"),
        (lambda f: (f / "model_index.json").unlink(), CorruptModel, "no model_index.json"),
        (lambda f: (f / "model_index.json").write_text("[1]"), CorruptModel, "not a diffusers pipeline"),
        (lambda f: (f / "model_index.json").write_text("{" * 100_000), CorruptModel, "not a diffusers pipeline"),
        (
            lambda f: (f / "model_index.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000),
            CorruptModel,
            "not a diffusers pipeline",
        ),
        (lambda f: change(f / "model_index.json", vae=5), Incompatible, "The vae of mine is missing"),
        (
            lambda f: change(f / "model_index.json", unet=["diffusers", "OnnxRuntimeModel"]),
            Incompatible,
            "The unet of mine is OnnxRuntimeModel; the studio needs UNet2DConditionModel.",
        ),
        (lambda f: change(f / "model_index.json", **{"../x": ["a", "b"]}), CorruptModel, "not a diffusers pipeline"),
    ],
)
def test_a_folder_that_could_lead_elsewhere_is_refused(folder: Path, spoil: Any, error: type, said: str) -> None:
    spoil(folder)
    with pytest.raises(error) as caught:
        inspect(folder)
    assert said in str(caught.value)
    assert str(folder.parent) not in str(caught.value)


@pytest.mark.parametrize("suffix", ["", ".ckpt", ".bin"])
def test_a_sound_file_under_a_name_that_gets_unpickled_is_refused(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(CorruptModel, match=r"is no \.safetensors file"):
        inspect(saved(tmp_path / f"model{suffix}", original("sd15")))


@pytest.mark.parametrize("shape", [(), (4,)])
def test_shapes_that_no_checkpoint_has_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    shapes = {**original("sd15"), "model.diffusion_model.input_blocks.0.0.weight": shape}
    with pytest.raises(CorruptModel, match=r"odd\.safetensors"):
        inspect(saved(tmp_path / "odd.safetensors", shapes))


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("nothing", "link", "loop"):
        with pytest.raises(NotFound, match=f"{name} leads to no file"):
            inspect(tmp_path / name)
    with pytest.raises(StorageFailed, match="cannot be read"):
        inspect(tmp_path / ("x" * 300))


def test_pickles_beside_the_weights_are_never_opened(tmp_path: Path, folder: Path, catalogue: Catalogue) -> None:
    canary = tmp_path / "canary"
    evil = pickles.all_kinds(canary)
    for place in ("", "unet", "vae", "text_encoder", "tokenizer", "scheduler", "tiny_vae"):
        for name in ("diffusion_pytorch_model.bin", "pytorch_model.bin", "model.pkl", "scheduler.pkl", "model.ckpt"):
            (folder / place / name).write_bytes(evil["legacy.pt"])
    index = {"metadata": {}, "weight_map": {"conv_in.weight": "pytorch_model.bin"}}
    for part in ("unet", "text_encoder"):
        for name in ("pytorch_model.bin.index.json", "diffusion_pytorch_model.bin.index.json"):
            (folder / part / name).write_text(json.dumps(index))
    assert inspect(folder).family == "sd15"
    load(catalogue.checkpoint("sd15"), folder, "cpu", torch.float32)
    assert not canary.exists()


def test_code_in_a_folder_is_never_run(tmp_path: Path, folder: Path, catalogue: Catalogue) -> None:
    canary = tmp_path / "canary"
    for place in (folder / "pipeline.py", folder / "unet" / "diffusers.py", folder / "unet" / "evil.py"):
        place.write_text(f"open({str(canary)!r}, 'x')\nclass UNet2DConditionModel: pass\n")
    changes = {"unet": ["evil", "UNet2DConditionModel"]}, {"_class_name": ["pipeline", "UNet2DConditionModel"]}
    for changed in changes:
        change(folder / "model_index.json", **changed)
        with pytest.raises(StudioError):
            inspect(folder)
            load(catalogue.checkpoint("sd15"), folder, "cpu", torch.float32)
    assert not canary.exists()


def test_an_object_is_read_where_there_is_one(tmp_path: Path) -> None:
    for name, text in (("a", b'{"x": 1}'), ("b", b"[1]"), ("c", b"\xff"), ("d", b"{" * 9_000_000)):
        (tmp_path / name).write_bytes(text)
    assert [dict(json_object(tmp_path / name)) for name in "abcde"] == [{"x": 1}, {}, {}, {}, {}]


def test_it_needs_no_torch() -> None:
    script = "import sys, studio.checkpoints; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=PROJECT_ROOT, check=False).returncode == 0
