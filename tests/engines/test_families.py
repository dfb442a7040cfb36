"""The three families make pictures through one engine, each as plain diffusers would."""

from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from diffusers import DiffusionPipeline

from engines.base import Step
from engines.devices import Device, cpu_threads
from engines.memory import release_memory
from engines.pool import PipelinePool
from engines.schedulers import build_scheduler
from engines.stable_diffusion import StableDiffusionEngine
from studio.domain.catalogue import Catalogue
from studio.domain.errors import GenerationFailed, Incompatible
from studio.domain.request import GenerationRequest, ResolvedRequest
from studio.settings import PROJECT_ROOT
from tests.engines.small import save_untrained

FAMILIES = ("sd15", "sd21", "sdxl")
CPU = Device(name="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for family in FAMILIES:
        save_untrained(family, folder / family)
    return folder


@pytest.fixture(scope="module")
def small_engine(models_dir: Path, catalogue: Catalogue) -> StableDiffusionEngine:
    pool = PipelinePool(PROJECT_ROOT, models_dir, CPU, offline=True)
    return StableDiffusionEngine(pool, catalogue)


def recipe_of(catalogue: Catalogue, family: str, **changes: object) -> ResolvedRequest:
    request = GenerationRequest(prompt="a red star on a white background", checkpoint=family, seed=5)
    small = {"width": 64, "height": 96, "num_inference_steps": 4}
    return catalogue.resolve(request).model_copy(update={**small, **changes})


def make(engine: StableDiffusionEngine, recipe: ResolvedRequest, steps: list[Step] | None = None) -> np.ndarray:
    seen = [] if steps is None else steps
    prompts = (recipe.prompt, recipe.negative_prompt)
    picture = engine.generate(recipe, prompts, cancelled=lambda: False, on_step=seen.append)
    return np.asarray(picture.image, dtype=int)


def test_a_checkpoint_without_a_tiny_decoder_says_so_before_it_draws(
    small_engine: StableDiffusionEngine, catalogue: Catalogue
) -> None:
    steps: list[Step] = []
    with pytest.raises(GenerationFailed, match=r"Stable Diffusion 1\.5 has no tiny decoder.*tiny_vae"):
        make(small_engine, recipe_of(catalogue, "sd15", decoder="tiny"), steps)
    assert steps == []


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("changes", [{}, {"negative_prompt": "blue"}, {"guidance_scale": 1.0}])
def test_a_picture_is_the_one_that_plain_diffusers_makes(
    small_engine: StableDiffusionEngine,
    models_dir: Path,
    catalogue: Catalogue,
    family: str,
    changes: dict[str, object],
) -> None:
    recipe = recipe_of(catalogue, family, **changes)
    pipeline = DiffusionPipeline.from_pretrained(models_dir / family, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    row, prediction_type = catalogue.scheduler(recipe.scheduler), catalogue.checkpoint(family).prediction_type
    assert prediction_type is not None
    pipeline.scheduler = build_scheduler(row, pipeline.scheduler.config, prediction_type)
    theirs = pipeline(
        recipe.prompt,
        negative_prompt=recipe.negative_prompt or None,
        width=recipe.width,
        height=recipe.height,
        num_inference_steps=recipe.num_inference_steps,
        guidance_scale=recipe.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(recipe.seed),
    ).images[0]
    with cpu_threads(torch.get_num_threads()):
        ours = make(small_engine, recipe)
    assert ours.std() > 1
    assert np.abs(ours - np.asarray(theirs, dtype=int)).max() <= 1


@pytest.mark.parametrize("family", FAMILIES)
def test_previews_need_no_decoder(small_engine: StableDiffusionEngine, catalogue: Catalogue, family: str) -> None:
    previews = []
    recipe = recipe_of(catalogue, family)
    small_engine.generate(
        recipe, (recipe.prompt, ""), cancelled=lambda: False, on_step=lambda step: previews.append(step.preview())
    )
    assert len(previews) == recipe.num_inference_steps
    assert all(preview.size == (32, 48) and np.asarray(preview).std() > 0 for preview in previews)


@pytest.mark.parametrize("part", ["vae", "unet", "text_encoder"])
def test_what_overflows_in_half_precision_is_done_again_in_float32(
    models_dir: Path, catalogue: Catalogue, part: str
) -> None:
    pool = PipelinePool(PROJECT_ROOT, models_dir, Device(name="cpu", dtype=torch.float16), offline=True)
    engine = StableDiffusionEngine(pool, catalogue)
    recipe = recipe_of(catalogue, "sd15", num_inference_steps=2)
    with pool.lease(catalogue.checkpoint("sd15")) as loaded:
        pipeline = loaded.pipeline
        first = {
            "vae": pipeline.vae.decoder.conv_in.weight,
            "unet": pipeline.unet.conv_in.weight,
            "text_encoder": pipeline.text_encoder.encoder.layers[0].mlp.fc1.weight,
        }[part]
        with torch.no_grad():
            first.copy_(first.float() * (30_000 / first.abs().max().item()))
        before = first.clone()
        picture = engine.generate(recipe, (recipe.prompt, ""), cancelled=lambda: False, on_step=lambda step: None)
        assert picture.environment["float32_parts"] == ("VAE" if part == "vae" else "UNet and text encoder")
        assert torch.equal(first, before) and first.dtype == torch.float16 and not first.is_inference()


def test_going_round_the_families_changes_no_bit(small_engine: StableDiffusionEngine, catalogue: Catalogue) -> None:
    first = {family: make(small_engine, recipe_of(catalogue, family)) for family in FAMILIES}
    for family in reversed(FAMILIES):
        assert np.array_equal(make(small_engine, recipe_of(catalogue, family)), first[family])


@pytest.mark.usefixtures("swept_heap")
def test_fifty_changes_of_family_leave_memory_where_it_was(models_dir: Path, catalogue: Catalogue) -> None:
    pool = PipelinePool(PROJECT_ROOT, models_dir, CPU, offline=True, limit_bytes=1)
    process, after_first_round = psutil.Process(), 0

    for number in range(51):
        with pool.lease(catalogue.checkpoint(FAMILIES[number % 3])):
            assert pool.state().loaded == (FAMILIES[number % 3],)
        if number == 2:
            release_memory()
            after_first_round = process.memory_info().rss
    release_memory()
    assert process.memory_info().rss <= 1.05 * after_first_round


@pytest.mark.parametrize(("placed", "holding"), [("sd15", "SDXL"), ("sd21", "SD 1.5"), ("sdxl", "SD 2.1")])
def test_a_checkpoint_under_another_familys_name_is_refused(
    models_dir: Path, tmp_path: Path, catalogue: Catalogue, placed: str, holding: str
) -> None:
    source = {"SD 1.5": "sd15", "SD 2.1": "sd21", "SDXL": "sdxl"}[holding]
    (tmp_path / placed).symlink_to(models_dir / source)
    pool = PipelinePool(PROJECT_ROOT, tmp_path, CPU, offline=True)
    with pytest.raises(Incompatible, match=f"of {holding}, and .* is one of"), pool.lease(catalogue.checkpoint(placed)):
        pass
