"""A picture that begins from another one: as diffusers does it, and with every pixel kept that was not to change."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionXLImg2ImgPipeline
from PIL import Image

from engines import work
from engines.base import Engine, Start, Step
from engines.devices import cpu_threads
from engines.pocket.checker import judge, see
from engines.pocket.grammar import parse
from engines.schedulers import build_scheduler
from studio.domain.catalogue import Catalogue
from studio.domain.errors import JobCancelled
from studio.domain.request import GenerationRequest, ResolvedRequest

CHECKPOINTS = ("pocket-sd15", "pocket-sd21", "pocket-sdxl")
SOME_NAME = "0" * 64
CIRCLE = "a red circle on the left on a white background"
Draw = Callable[..., Image.Image]


def recipe_of(catalogue: Catalogue, start: Start | None, **values: Any) -> ResolvedRequest:
    named = {"init_image": SOME_NAME if start else "", "mask": SOME_NAME if start and start.mask else ""}
    return catalogue.resolve(GenerationRequest(**{"prompt": CIRCLE, "seed": 3, **named, **values}))


@pytest.fixture
def draw(engine: Engine, catalogue: Catalogue) -> Draw:
    def drawn(
        start: Start | None = None, on_step: Callable[[Step], None] = lambda step: None, **values: Any
    ) -> Image.Image:
        recipe = recipe_of(catalogue, start, **values)
        prompts = (recipe.prompt, recipe.negative_prompt)
        return engine.generate(recipe, prompts, start=start, cancelled=lambda: False, on_step=on_step).image

    return drawn


def plain_img2img(engine: Any, catalogue: Catalogue, recipe: ResolvedRequest, image: Image.Image) -> torch.Tensor:
    """What diffusers' own pipeline makes of the same start, noise and timesteps: latents."""
    own = StableDiffusionXLImg2ImgPipeline if recipe.checkpoint == "pocket-sdxl" else StableDiffusionImg2ImgPipeline
    bare = {} if recipe.checkpoint == "pocket-sdxl" else {"requires_safety_checker": False}
    checkpoint = catalogue.checkpoint(recipe.checkpoint)
    with engine._pool.lease(checkpoint) as loaded, torch.inference_mode(), cpu_threads(1):
        pipeline = own(**loaded.pipeline.components, **bare)
        pipeline.set_progress_bar_config(disable=True)
        row = catalogue.scheduler(recipe.scheduler)
        pipeline.scheduler = build_scheduler(row, loaded.pipeline.scheduler.config, loaded.prediction_type)
        drawn: Any = pipeline(
            prompt=recipe.prompt,
            negative_prompt="",
            image=work._encoded(loaded.pipeline, image),
            strength=recipe.strength,
            num_inference_steps=recipe.num_inference_steps,
            guidance_scale=recipe.guidance_scale,
            generator=torch.Generator().manual_seed(recipe.seed),
            output_type="latent",
        )
        return drawn.images


@pytest.mark.parametrize("scheduler", ["dpmpp_2m_karras", "unipc", "euler_a", "heun", "ddim", "lcm"])
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_latents_are_those_of_diffusers_from_the_same_start(
    engine: Engine, catalogue: Catalogue, draw: Draw, monkeypatch: pytest.MonkeyPatch, checkpoint: str, scheduler: str
) -> None:
    source = draw(checkpoint=checkpoint, num_inference_steps=6)
    values = {"checkpoint": checkpoint, "scheduler": scheduler, "num_inference_steps": 5, "strength": 0.6, "seed": 8}
    found: list[torch.Tensor] = []
    decoded = work._decoded
    monkeypatch.setattr(work, "_decoded", lambda pipeline, latents: found.append(latents) or decoded(pipeline, latents))
    steps: list[Step] = []
    start = Start(image=source)
    draw(start, on_step=steps.append, **values)
    theirs = plain_img2img(engine, catalogue, recipe_of(catalogue, start, **values), source)
    assert (found[0] - theirs).abs().max() <= 1e-5
    assert [step.step for step in steps] == list(range(1, steps[0].total + 1))


def test_little_strength_keeps_the_layout_and_all_of_it_does_not(draw: Draw) -> None:
    source, prompt = draw(), "a blue square on the right on a white background"
    (before,) = see(source).objects
    (near,) = see(draw(Start(image=source), prompt=prompt, strength=0.3, seed=50)).objects
    assert abs(near.x - before.x) < 0.05 and abs(near.y - before.y) < 0.05
    scene = parse(prompt)
    assert scene is not None
    assert judge(draw(Start(image=source), prompt=prompt, strength=1.0, seed=50), scene).correct


def test_however_little_strength_one_step_is_drawn(draw: Draw) -> None:
    steps: list[Step] = []
    draw(Start(image=draw()), on_step=steps.append, strength=0.05, num_inference_steps=4)
    assert [(step.step, step.total) for step in steps] == [(1, 1)]


def test_a_picture_that_begins_from_another_does_not_change_the_next_one(draw: Draw) -> None:
    source = draw()
    draw(Start(image=source), strength=0.5, seed=9)
    assert draw().tobytes() == source.tobytes()


def right_half(size: tuple[int, int]) -> Image.Image:
    mask = Image.new("L", size, 0)
    mask.paste(255, (size[0] // 2, 0, *size))
    return mask


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@pytest.mark.parametrize("scheduler", ["dpmpp_2m_karras", "heun", "lcm"])
def test_outside_the_mask_every_pixel_is_the_same_whatever_draws(draw: Draw, checkpoint: str, scheduler: str) -> None:
    source = draw(checkpoint=checkpoint, num_inference_steps=6)
    noisy = Image.effect_noise(source.size, 60).convert("RGB")
    start = Start(image=Image.blend(source, noisy, 0.2), mask=right_half(source.size))
    drawn = draw(start, checkpoint=checkpoint, scheduler=scheduler, num_inference_steps=4, seed=5)
    before, after = np.asarray(start.image), np.asarray(drawn)
    half = source.width // 2
    assert np.array_equal(before[:, :half], after[:, :half])
    assert (before[:, half:] != after[:, half:]).any(axis=2).mean() > 0.5


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_what_is_asked_for_is_drawn_where_the_mask_is(draw: Draw, checkpoint: str) -> None:
    prompt = "a red circle left of a yellow heart on a white background"
    found = 0
    for seed in (0, 1, 2):
        source = draw(checkpoint=checkpoint, seed=seed)
        start = Start(image=source, mask=right_half(source.size))
        seen = see(draw(start, prompt=prompt, checkpoint=checkpoint, strength=1.0, seed=seed + 50)).objects
        found += any((each.colour, each.shape) == ("yellow", "heart") and each.x > 0.5 for each in seen)
    assert found >= 2


def test_stopping_in_the_second_pass_takes_one_step(engine: Engine, catalogue: Catalogue) -> None:
    recipe = recipe_of(catalogue, None, num_inference_steps=4, hires_scale=1.5, hires_strength=0.5)
    seen: list[Step] = []
    with pytest.raises(JobCancelled):
        engine.generate(recipe, (recipe.prompt, ""), cancelled=lambda: len(seen) >= 5, on_step=seen.append)
    assert [(step.step, step.total) for step in seen] == [(number, 6) for number in (1, 2, 3, 4, 5)]


@pytest.mark.parametrize("scheduler", ["dpmpp_2m_karras", "heun", "unipc", "lcm"])
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_the_second_pass_draws_what_starting_from_the_enlarged_picture_would(
    draw: Draw, catalogue: Catalogue, checkpoint: str, scheduler: str
) -> None:
    values = {"checkpoint": checkpoint, "scheduler": scheduler, "num_inference_steps": 6}
    steps: list[Step] = []
    at_once = draw(on_step=steps.append, **values, hires_scale=1.25, hires_strength=0.5, hires_steps=4)
    side = catalogue.checkpoint(checkpoint).native_size * 5 // 4
    assert at_once.size == (side, side)
    assert [step.step for step in steps] == list(range(1, steps[0].total + 1))
    assert {step.total for step in steps} == {steps[0].total}
    larger = draw(**values).resize((side, side), Image.Resampling.LANCZOS)
    again = {**values, "width": side, "height": side, "num_inference_steps": 4}
    assert draw(Start(image=larger), **again, strength=0.5).tobytes() == at_once.tobytes()


@pytest.mark.parametrize("upscaler", ["lanczos", "latent"])
def test_a_second_pass_shows_what_the_first_did(draw: Draw, upscaler: str) -> None:
    prompt = "a large red circle on a white background"
    scene = parse(prompt)
    assert scene is not None
    assert judge(draw(prompt=prompt, seed=7, hires_scale=1.5, hires_upscaler=upscaler), scene).correct
