"""Stand-ins of full size and what a single-file checkpoint leaves out."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel

from engines import full_size
from engines.full_size import build_random, clip_tokenizer, family_folder, family_tokenizers
from studio.domain.catalogue import Catalogue
from studio.domain.errors import DownloadFailed
from studio.settings import PROJECT_ROOT
from tests.engines.small import save_untrained

PREDICT_AND_MEASURE = """
import sys
from pathlib import Path
import psutil
from studio.checkpoints import OwnCheckpoints
from studio.domain.catalogue import Catalogue
from studio.domain.request import GenerationRequest
from studio.services import CATALOGUE_PATH, load_engine
from studio.settings import Settings
settings, catalogue = Settings(data_dir=Path(sys.argv[1]), offline=True), Catalogue.load(CATALOGUE_PATH)
OwnCheckpoints(settings.models_dir, catalogue).refresh()
engine = load_engine(settings, catalogue)
asked = GenerationRequest(prompt="a fox", checkpoint="random-sd15", num_inference_steps=1, seed=1)
recipe = catalogue.resolve(asked).single(0)
plan, before = engine.plan(recipe), psutil.Process().memory_info().rss
picture = engine.generate(recipe, ("a fox", ""), cancelled=lambda: False, on_step=lambda step: None)
print(plan.needed_bytes, picture.peak_memory_mb * 2**20 - before, plan.placement, picture.image.size)
"""


PARAMETERS = {
    ("sd15", "unet"): 859_520_964,
    ("sd21", "unet"): 865_910_724,
    ("sdxl", "unet"): 2_567_463_684,
    ("sd15", "vae"): 83_653_863,
    ("sdxl", "vae"): 83_653_863,
}
"""As published with the checkpoints."""

needs_words = pytest.mark.skipif(
    importlib.util.find_spec("open_clip") is None, reason="open_clip, which brings the word list, is not installed"
)


@pytest.fixture
def small_families(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders without weights, as `families/` has them, but of the small shapes."""
    for family in ("sd15", "sd21", "sdxl"):
        save_untrained(family, tmp_path / "whole" / family)
        shutil.copytree(
            tmp_path / "whole" / family,
            tmp_path / family,
            ignore=shutil.ignore_patterns("*.safetensors*", "tokenizer*"),
        )
        for encoder in tmp_path.glob(f"{family}/text_encoder*/config.json"):
            encoder.write_text(json.dumps({**json.loads(encoder.read_text()), "vocab_size": 49_408}))
    monkeypatch.setattr(full_size, "FAMILIES_FOLDER", tmp_path)
    return tmp_path


@pytest.mark.parametrize(("family", "part"), PARAMETERS)
def test_the_shapes_are_those_of_the_published_checkpoints(family: str, part: str) -> None:
    module_class = UNet2DConditionModel if part == "unet" else AutoencoderKL
    with torch.device("meta"):
        module = module_class.from_config(module_class.load_config(family_folder(family) / part))
    assert sum(parameter.numel() for parameter in module.parameters()) == PARAMETERS[family, part]


def test_every_family_of_the_catalogue_has_its_shapes(catalogue: Catalogue) -> None:
    for family in catalogue.families:
        config = json.loads((family_folder(family.id) / "unet" / "config.json").read_text())
        assert config["sample_size"] * family.vae_scale_factor == family.native_size


@needs_words
def test_the_word_list_gives_clips_own_tokens() -> None:
    tokenizer = clip_tokenizer()
    assert len(tokenizer) == 49_408
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]


@needs_words
def test_texts_are_padded_as_each_encoder_was_trained() -> None:
    padded = {name: token.pad_token_id for name, token in family_tokenizers("sdxl").items()}
    assert padded == {"tokenizer": 49407, "tokenizer_2": 0}


def without_words(offline: bool = False) -> None:
    raise DownloadFailed("no words")


def test_without_the_word_list_the_next_step_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DownloadFailed, match="word list") as caught:
        clip_tokenizer(offline=True)
    assert "open-clip-torch" in caught.value.hint


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts the peak")
def test_the_memory_that_a_full_size_picture_takes_is_predicted_within_15_percent(tmp_path: Path) -> None:
    if psutil.virtual_memory().available < 8 * 2**30 or shutil.disk_usage(tmp_path).free < 8 * 2**30:
        pytest.skip("a full-size checkpoint in float32 wants 8 GB of memory and of disk")
    (tmp_path / "models").mkdir()
    build_random("sd15", tmp_path / "models" / "random-sd15")
    command = [sys.executable, "-c", PREDICT_AND_MEASURE, str(tmp_path)]
    told = subprocess.run(command, check=True, cwd=PROJECT_ROOT, capture_output=True, text=True).stdout.splitlines()
    predicted, measured, placement = told[-1].split()[:3]
    assert placement == "resident"
    assert float(predicted) == pytest.approx(float(measured), rel=0.15)
    shutil.rmtree(tmp_path / "models")


@pytest.mark.parametrize("family", ["sd15", "sd21", "sdxl"])
def test_a_stand_in_is_a_standard_folder_that_draws_finite_pictures(
    small_families: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    monkeypatch.setattr(full_size, "clip_tokenizer", without_words)
    parts: list[str] = []
    build_random(family, small_families / "out", on_part=parts.append)
    assert parts[-2:] == ["unet", "vae"]
    pipeline = DiffusionPipeline.from_pretrained(small_families / "out", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pixels = pipeline("a cat", num_inference_steps=2, height=64, width=64, output_type="np").images
    assert pixels.std() > 0 and (pixels == pixels).all()
    first = {path.name: path.read_bytes() for path in (small_families / "out" / "unet").iterdir()}
    build_random(family, small_families / "out")
    assert {path.name: path.read_bytes() for path in (small_families / "out" / "unet").iterdir()} == first
