"""A recipe with an accelerator: drawn as diffusers would with its adapter and timesteps, recorded, and made again."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import LCMScheduler, StableDiffusionPipeline
from PIL import Image

from studio.domain.errors import DownloadFailed, InvalidRequest
from studio.domain.images import ImageRecord
from studio.domain.request import GenerationRequest
from studio.domain.timesteps import trailing_timesteps
from studio.infotext import infotext, request_from_infotext
from studio.services import Services
from studio.settings import PROJECT_ROOT
from tests.studio.adapter_files import adapter_file
from tests.studio.conftest import Cli

PROMPT, SEED = "a red star on a white background", 5


def pixels(services: Services, record: ImageRecord) -> np.ndarray:
    return np.asarray(Image.open(services.gallery.path(record)), dtype=int)


def test_the_picture_is_that_of_diffusers_with_the_same_adapter_and_timesteps(opened: Services, swift: Path) -> None:
    (record,) = opened.generate(PROMPT, seed=SEED, accelerator="swift")
    pipeline = StableDiffusionPipeline.from_pretrained(
        PROJECT_ROOT / "engines/pocket/weights/pocket-sd15", dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(swift, adapter_name="swift")
    pipeline.set_adapters("swift", 0.5)
    pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
    theirs = pipeline(
        PROMPT,
        timesteps=list(trailing_timesteps(4)),
        guidance_scale=1.0,
        width=128,
        height=128,
        generator=torch.Generator().manual_seed(SEED),
    ).images[0]
    assert np.abs(pixels(opened, record) - np.asarray(theirs, dtype=int)).max() <= 1
    assert (record.recipe.num_inference_steps, record.recipe.guidance_scale) == (4, 1.0)


def test_it_is_recorded_leaves_nothing_behind_and_comes_out_the_same_again(opened: Services) -> None:
    (plain,) = opened.generate(PROMPT, seed=SEED, num_inference_steps=4)
    (swift,) = opened.generate(PROMPT, seed=SEED, accelerator="swift")
    (after,) = opened.generate(PROMPT, seed=SEED, num_inference_steps=4, again=True)
    assert np.array_equal(pixels(opened, plain), pixels(opened, after))
    assert swift.environment["accelerator"].startswith("swift: ") and "accelerator" not in plain.environment
    job = opened.reproduction.submit(swift.id)
    assert job.result()["judgement"] == "identical"
    assert opened.generate(PROMPT, seed=SEED, accelerator="swift")[0].id == swift.id


def test_a_file_of_ones_own_takes_the_place_of_the_catalogues(opened: Services, tmp_path: Path) -> None:
    (before,) = opened.generate(PROMPT, seed=SEED, accelerator="swift")
    other = adapter_file(tmp_path / "other.safetensors", scale=0.6)
    opened.settings.accelerators_dir.mkdir(parents=True, exist_ok=True)
    shutil.copy(other, opened.settings.accelerators_dir / "swift.safetensors")
    (now,) = opened.generate(PROMPT, seed=SEED, accelerator="swift")
    assert now.id != before.id and now.environment["accelerator"] != before.environment["accelerator"]
    assert not np.array_equal(pixels(opened, before), pixels(opened, now))


def test_another_sampler_is_left_to_its_own_timesteps(opened: Services) -> None:
    (record,) = opened.generate(PROMPT, seed=SEED, accelerator="swift", scheduler="euler")
    assert record.recipe.scheduler == "euler"


def test_settings_come_back_from_a_picture(opened: Services) -> None:
    (record,) = opened.generate(PROMPT, seed=SEED, accelerator="swift")
    found = request_from_infotext(infotext(record, opened.catalogue), opened.catalogue)
    assert found.request.accelerator == "swift" and found.left_out == ()
    unknown = request_from_infotext(infotext(record, opened.catalogue).replace("swift", "gone"), opened.catalogue)
    assert unknown.request.accelerator is None and "accelerator gone" in unknown.left_out


def test_what_it_was_not_made_for_is_said_and_drawn(cli: Cli, swift: Path) -> None:
    code, out, err = cli("generate", PROMPT, "--accelerator", "swift", "--steps", "3", "--guidance", "2")
    assert code == 0 and out.strip().endswith(".png")
    assert "Swift was made for 2 or 4 steps; 3 may come out unfinished or overdone." in err
    assert "Swift was made for guidance off (1); 2 overdoes" in err
    code, _, err = cli("generate", PROMPT, "--accelerator", "lcm-sd15")
    assert code == 2 and "LCM LoRA for SD 1.5 was not made for Pocket SD 1.5" in err and "--accelerator" in err


def test_one_that_is_not_here_is_not_fetched_offline(opened: Services) -> None:
    asked = GenerationRequest(prompt="x", checkpoint="sd15", accelerator="flash-sd")
    recipe = opened.catalogue.resolve(asked)
    with pytest.raises(DownloadFailed, match=r"Flash SD is not on this machine.*put the file pytorch_lora_weights"):
        opened.accelerators.ready(recipe)
    with pytest.raises(InvalidRequest, match=r"was not made for Pocket SD 1\.5"):
        opened.generate(PROMPT, accelerator="flash-sd")
