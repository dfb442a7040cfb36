"""Checkpoints are opened from folders and single files, and refused in one sentence when they cannot be."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from engines import full_size, loading
from engines.footprint import footprint_of
from engines.identity import weights_sha256
from engines.loading import load
from engines.prediction import measure_prediction_type
from engines.soundness import inspect
from studio.domain.catalogue import Catalogue, Checkpoint
from studio.domain.errors import CorruptModel
from studio.settings import PROJECT_ROOT
from tests.engines.original import save_original
from tests.engines.small import save_untrained

POCKET = PROJECT_ROOT / "engines/pocket/weights/pocket-sd15"


@pytest.fixture
def row(catalogue: Catalogue) -> Checkpoint:
    return catalogue.checkpoint("sd15")


def test_pickled_weights_are_refused_before_anything_is_opened(tmp_path: Path) -> None:
    folder = tmp_path / "evil"
    shutil.copytree(POCKET, folder)
    for path in (folder / "unet").glob("*.safetensors"):
        path.unlink()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(CorruptModel, match="pickle"):
        inspect(folder)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt", ".pt"])
def test_a_pickle_is_refused_whatever_it_is_called(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    torch.save({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4)}, path)
    with pytest.raises(CorruptModel, match=r"only \.safetensors|no \.safetensors"):
        inspect(path)


def test_a_pickled_preview_decoder_is_refused_too(tmp_path: Path) -> None:
    folder = tmp_path / "evil"
    shutil.copytree(POCKET, folder)
    for path in (folder / "tiny_vae").glob("*.safetensors"):
        path.rename(path.with_suffix(".bin"))
    with pytest.raises(CorruptModel, match=r"tiny_vae only has .*pickle"):
        inspect(folder)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptModel, match=r"model_index\.json"):
        inspect(tmp_path)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tiny_vae"])
def test_truncated_weights_are_refused_in_one_sentence(tmp_path: Path, row: Checkpoint, part: str) -> None:
    folder = tmp_path / "sd15"
    shutil.copytree(POCKET, folder)
    weights = next((folder / part).glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:50_000])
    with pytest.raises(CorruptModel, match=weights.name) as caught:
        load(row, folder, "cpu", torch.float32)
    assert str(tmp_path) not in str(caught.value)


def test_a_folder_whose_parts_do_not_fit_is_refused_in_one_sentence(tmp_path: Path, row: Checkpoint) -> None:
    folder = tmp_path / "sd15"
    shutil.copytree(POCKET, folder)
    config = folder / "unet" / "config.json"
    config.write_text(config.read_text().replace("192", "96"))
    with pytest.raises(CorruptModel, match="cannot be loaded") as caught:
        load(row, folder, "cpu", torch.float32)
    assert str(tmp_path) not in str(caught.value)


def test_a_folder_without_words_is_refused_instead_of_reading_every_prompt_the_same(
    tmp_path: Path, row: Checkpoint
) -> None:
    shutil.copytree(POCKET, tmp_path / "sd15", ignore=shutil.ignore_patterns("tokenizer*.json", "vocab.json", "*.txt"))
    with pytest.raises(CorruptModel, match="sd15/tokenizer has no words"):
        load(row, tmp_path / "sd15", "cpu", torch.float32)


def test_the_hash_of_a_checkpoint_changes_with_any_of_its_parts(tmp_path: Path) -> None:
    hashes = set()
    for touched in ("", "unet", "vae", "text_encoder"):
        folder = tmp_path / (touched or "original")
        shutil.copytree(POCKET, folder)
        if touched:
            weights = next((folder / touched).glob("*.safetensors"))
            weights.write_bytes(weights.read_bytes()[:-1] + b"x")
        hashes.add(weights_sha256(folder))
    assert len(hashes) == 4


def test_what_weights_will_take_is_known_beforehand(row: Checkpoint) -> None:
    for dtype in (torch.float32, torch.float16):
        loaded = load(row, POCKET, "cpu", dtype)
        assert footprint_of(POCKET).total * dtype.itemsize == pytest.approx(loaded.num_bytes, rel=0.001)


@pytest.mark.parametrize("family", ["sd15", "sd21", "sdxl"])
def test_a_single_file_draws_what_its_folder_draws(
    tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    folder, path = tmp_path / family, tmp_path / "from a friend.safetensors"
    save_untrained(family, folder)
    plain = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    save_original(plain, path)
    monkeypatch.setattr(full_size, "FAMILIES_FOLDER", tmp_path)
    names = [name for name in plain.components if name.startswith("tokenizer")]
    tokenizers = {name: plain.components[name] for name in names}
    monkeypatch.setattr(loading, "family_tokenizers", lambda *_: tokenizers)
    loaded = load(catalogue.checkpoint(family), path, "cpu", torch.float32).pipeline
    pictures = []
    for pipeline in (plain, loaded):
        pipeline.set_progress_bar_config(disable=True)
        pipeline.scheduler = plain.scheduler
        generator = torch.Generator().manual_seed(0)
        asked = {"height": 64, "width": 64, "num_inference_steps": 2, "output_type": "np"}
        pictures.append(pipeline("a red star", generator=generator, **asked).images)
    assert np.abs(pictures[0] - pictures[1]).max() < 1e-3


def test_a_trained_unet_shows_that_it_predicts_noise(row: Checkpoint) -> None:
    loaded = load(row, POCKET, "cpu", torch.float32)
    assert measure_prediction_type(loaded.pipeline) == "epsilon"


def test_a_wrong_statement_of_the_prediction_is_put_right(row: Checkpoint) -> None:
    for said in ("v_prediction", None):
        wrong = row.model_copy(update={"prediction_type": said})
        assert load(wrong, POCKET, "cpu", torch.float32).prediction_type == "epsilon"
