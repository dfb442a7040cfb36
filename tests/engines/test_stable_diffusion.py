"""The engine makes the right picture, the same one every time, and stops when told."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engines.base import Engine, Step, unheard
from engines.devices import cpu_threads, is_bfloat16_fast
from engines.pocket.checker import judge
from engines.pocket.grammar import parse
from studio.accelerators import AcceleratorService
from studio.domain.catalogue import Catalogue
from studio.domain.errors import GenerationFailed, JobCancelled
from studio.domain.request import GenerationRequest, ResolvedRequest
from studio.services import load_engine
from studio.settings import PROJECT_ROOT, Settings

HEART = "a yellow heart above a purple square on a navy background"

NAMES = str(PROJECT_ROOT / "engines" / "torchvision_names.py")
"""Read by the programs below, since what is installed beside them may not fit their torch; nothing else of ours is."""

PLAIN_DIFFUSERS = """
import sys, torch
exec(open(sys.argv.pop(1)).read())
name_before_import()
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
folder, prompt, out = sys.argv[1:]
pipe = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
pipe.scheduler = DPMSolverMultistepScheduler.from_config(
    pipe.scheduler.config, use_karras_sigmas=True, algorithm_type="dpmsolver++", solver_order=2)
image = pipe(prompt, num_inference_steps=25, guidance_scale=3.0, width=128, height=128,
             generator=torch.Generator("cpu").manual_seed(8)).images[0]
image.save(out)
assert not any(name.split(".")[0] in ("engines", "studio", "tabs") for name in sys.modules)
"""


def never() -> bool:
    return False


def ignore(step: Step) -> None:
    pass


@pytest.fixture
def recipe(catalogue: Catalogue) -> ResolvedRequest:
    return catalogue.resolve(GenerationRequest(prompt=HEART, seed=8))


def make(engine: Engine, recipe: ResolvedRequest) -> Image.Image:
    return engine.generate(recipe, (recipe.prompt, recipe.negative_prompt), cancelled=never, on_step=ignore).image


def test_the_prompt_becomes_the_right_picture(engine: Engine, recipe: ResolvedRequest) -> None:
    scene = parse(HEART)
    assert scene is not None
    verdict = judge(make(engine, recipe), scene)
    assert verdict.correct, verdict


def test_plain_diffusers_makes_the_same_picture(engine: Engine, recipe: ResolvedRequest, tmp_path: Path) -> None:
    folder = PROJECT_ROOT / "engines/pocket/weights/pocket-sd15"
    out = tmp_path / "plain.png"
    command = [sys.executable, "-c", PLAIN_DIFFUSERS, NAMES, str(folder), HEART, str(out)]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    ours = np.asarray(make(engine, recipe), dtype=int)
    theirs = np.asarray(Image.open(out).convert("RGB"), dtype=int)
    assert np.abs(ours - theirs).max() <= 1


TINY_DIFFUSERS = """
import sys, torch
exec(open(sys.argv.pop(1)).read())
name_before_import()
from diffusers import AutoencoderTiny, LCMScheduler, StableDiffusionPipeline
folder, adapter, prompt, out = sys.argv[1:]
pipe = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
pipe.vae = AutoencoderTiny.from_pretrained(folder + "/tiny_vae", dtype=torch.float32)
pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
pipe.load_lora_weights(adapter)
pipe(prompt, num_inference_steps=4, guidance_scale=1.0, width=128, height=128,
     generator=torch.Generator("cpu").manual_seed(8)).images[0].save(out)
"""


def test_few_steps_with_the_tiny_decoder_are_those_of_plain_diffusers_with_it(
    engine: Engine, catalogue: Catalogue, tmp_path: Path
) -> None:
    folder, accelerator = PROJECT_ROOT / "engines/pocket/weights/pocket-sd15", "flash-pocket-sd15"
    row = catalogue.accelerator(accelerator)
    assert row is not None and row.file is not None
    out = tmp_path / "plain.png"
    command = [sys.executable, "-c", TINY_DIFFUSERS, NAMES, str(folder), str(PROJECT_ROOT / row.file), HEART, str(out)]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    asked = GenerationRequest(prompt=HEART, seed=8, accelerator=accelerator, num_inference_steps=4, decoder="tiny")
    recipe = catalogue.resolve(asked)
    ready = AcceleratorService(catalogue, tmp_path, offline=True).ready(recipe, never, unheard)
    assert ready is not None
    drawn = engine.generate(
        recipe, (HEART, ""), (ready.adapter,), timesteps=ready.timesteps, cancelled=never, on_step=ignore
    ).image
    theirs = np.asarray(Image.open(out).convert("RGB"), dtype=int)
    assert np.abs(np.asarray(drawn, dtype=int) - theirs).max() <= 1


def test_the_decoder_in_half_precision_draws_the_same_picture_but_for_last_bits(
    engine: Engine, recipe: ResolvedRequest
) -> None:
    half = recipe.model_copy(update={"decoder": "half"})
    full, drawn = (np.asarray(make(engine, each), dtype=int) for each in (recipe, half))
    difference = np.abs(full - drawn)
    assert difference.max() <= 4 and difference.mean() < 0.5
    assert is_bfloat16_fast("cpu") == bool(difference.any())
    assert np.array_equal(np.asarray(make(engine, recipe), dtype=int), full)


def test_where_half_precision_is_not_faster_the_decoder_is_the_full_one(
    engine: Engine, recipe: ResolvedRequest, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("engines.loading.is_bfloat16_fast", lambda device: False)
    other = load_engine(Settings(data_dir=tmp_path, offline=True), catalogue)
    half = recipe.model_copy(update={"decoder": "half"})
    assert make(other, half).tobytes() == make(engine, recipe).tobytes()


def test_a_recipe_makes_the_same_bytes_whatever_came_before(engine: Engine, recipe: ResolvedRequest) -> None:
    first = make(engine, recipe)
    make(engine, recipe.model_copy(update={"scheduler": "euler_a", "seed": 9, "width": 160, "num_inference_steps": 3}))
    assert make(engine, recipe).tobytes() == first.tobytes()


def test_cancelling_stops_within_one_step_and_harms_nothing(engine: Engine, recipe: ResolvedRequest) -> None:
    undisturbed = make(engine, recipe)
    seen: list[int] = []

    with pytest.raises(JobCancelled):
        engine.generate(
            recipe,
            (HEART, ""),
            cancelled=lambda: len(seen) >= 3,
            on_step=lambda step: seen.append(step.step),
        )
    assert seen == [1, 2, 3]
    assert make(engine, recipe).tobytes() == undisturbed.tobytes()


def test_values_that_are_not_finite_are_an_error_and_never_a_picture(
    engine: Engine, recipe: ResolvedRequest, catalogue: Catalogue
) -> None:
    with engine._pool.lease(catalogue.checkpoint("pocket-sd15")) as loaded:
        weight = loaded.pipeline.unet.conv_out.weight
        kept = weight.detach().clone()
        try:
            with torch.no_grad():
                weight[0, 0, 0, 0] = float("nan")
            with pytest.raises(GenerationFailed, match="finite"):
                make(engine, recipe)
        finally:
            with torch.no_grad():
                weight.copy_(kept)


def test_previews_grow_towards_the_picture(engine: Engine, recipe: ResolvedRequest) -> None:
    previews: list[Image.Image] = []
    picture = engine.generate(
        recipe, (HEART, ""), cancelled=never, on_step=lambda step: previews.append(step.preview())
    ).image
    assert len(previews) == recipe.num_inference_steps
    errors = [
        np.abs(np.asarray(p.resize(picture.size), dtype=float) - np.asarray(picture, dtype=float)).mean()
        for p in previews
    ]
    assert errors[-1] < 0.5 * errors[0]
    assert errors[-1] < 12


def test_every_sampler_makes_a_picture_and_the_same_one_again(
    engine: Engine, recipe: ResolvedRequest, catalogue: Catalogue
) -> None:
    pictures = set()
    for row in catalogue.schedulers:
        asked, steps = recipe.model_copy(update={"scheduler": row.id, "num_inference_steps": 6}), []
        prompts = (asked.prompt, asked.negative_prompt)
        image = engine.generate(asked, prompts, cancelled=never, on_step=steps.append).image
        assert image.size == (128, 128)
        assert [step.step for step in steps] == list(range(1, steps[0].total + 1)), row.id
        assert make(engine, asked).tobytes() == image.tobytes(), row.id
        pictures.add(image.tobytes())
    assert len(pictures) == len(catalogue.schedulers)


@pytest.mark.parametrize("scheduler", ["dpmpp_2m", "unipc", "euler", "ddim"])
def test_other_samplers_draw_the_prompt_too(engine: Engine, recipe: ResolvedRequest, scheduler: str) -> None:
    scene = parse("a large red circle on a white background")
    assert scene is not None
    prompt = "a large red circle on a white background"
    image = make(engine, recipe.model_copy(update={"scheduler": scheduler, "prompt": prompt, "seed": 3}))
    assert judge(image, scene).correct


def test_the_negative_prompt_acts_only_with_guidance(engine: Engine, recipe: ResolvedRequest) -> None:
    def with_negative(guidance_scale: float, negative: str) -> bytes:
        changed = recipe.model_copy(
            update={"guidance_scale": guidance_scale, "negative_prompt": negative, "num_inference_steps": 4}
        )
        return make(engine, changed).tobytes()

    assert with_negative(1.0, "red") == with_negative(1.0, "")
    assert with_negative(5.0, "red") != with_negative(5.0, "")


def test_time_and_memory_are_measured(engine: Engine, recipe: ResolvedRequest) -> None:
    picture = engine.generate(recipe, (HEART, ""), cancelled=never, on_step=ignore)
    seconds = picture.seconds
    assert 0 < seconds["denoise"] <= seconds["total"]
    assert seconds["text"] + seconds["denoise"] + seconds["decode"] == pytest.approx(seconds["total"], abs=0.01)
    assert picture.peak_memory_mb > 100
    assert picture.environment["dtype"] == "float32"
    assert len(picture.environment["checkpoint_sha256"]) == 64


def test_a_pocket_picture_is_the_same_on_machines_of_any_size(engine: Engine, recipe: ResolvedRequest) -> None:
    first = make(engine, recipe)
    with cpu_threads(torch.get_num_threads() + 2):
        assert make(engine, recipe).tobytes() == first.tobytes()
