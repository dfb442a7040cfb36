"""Recipes that begin from a picture, or end in a second pass: told in files, read back, and drawn again to the byte."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engines.base import Engine
from studio.domain.catalogue import Catalogue
from studio.domain.errors import NotFound
from studio.domain.images import ImageRecord, recipe_sha256
from studio.domain.request import GenerationRequest, ResolvedRequest
from studio.gallery import opened
from studio.generation import EngineHolder
from studio.infotext import infotext, parse_infotext, request_from_infotext
from studio.metadata import read_settings
from studio.services import Services, open_services
from studio.settings import Settings
from tests.studio.conftest import Cli
from tests.studio.records import picture, recipe, record

QUICK = {"num_inference_steps": 4, "seed": 5}
NAME, OTHER = "ab" * 32, "cd" * 32


def random_beginning(rng: random.Random) -> dict[str, object]:
    starts, grows = rng.random() < 0.6, rng.random() < 0.5
    values: dict[str, object] = {}
    if starts:
        values = {"init_image": NAME, "strength": rng.randint(1, 20) / 20}
    if starts and not grows and rng.random() < 0.5:
        values |= {"mask": OTHER, "mask_blur": rng.randint(0, 64)}
    if grows:
        values |= {"hires_scale": rng.choice((1.25, 1.5)), "hires_strength": rng.randint(1, 20) / 20}
        values |= {"hires_steps": rng.randint(1, 150), "hires_upscaler": rng.choice(("latent", "lanczos"))}
    return values


def test_what_a_text_says_of_a_beginning_is_read_back(catalogue: Catalogue) -> None:
    rng = random.Random(4)
    for _ in range(200):
        made = catalogue.resolve(recipe(**random_beginning(rng)).as_request())
        found = request_from_infotext(infotext(record(made=made), catalogue), catalogue)
        assert catalogue.resolve(found.request) == made


def test_the_keys_are_those_of_a1111(catalogue: Catalogue) -> None:
    begun = recipe(init_image=NAME, strength=0.6, mask=OTHER, mask_blur=8)
    told = parse_infotext(infotext(record(made=begun), catalogue))
    assert [told[key] for key in ("Denoising strength", "Mask blur", "Init image hash")] == ["0.6", "8", NAME]
    grown = recipe(hires_scale=1.5, hires_strength=0.4, hires_steps=10, hires_upscaler="latent")
    told = parse_infotext(infotext(record(made=grown), catalogue))
    keys = ("Denoising strength", "Hires upscale", "Hires steps", "Hires upscaler", "Size-1")
    assert [told[key] for key in keys] == ["0.4", "1.5", "10", "Latent", "128"]
    plain = infotext(record(), catalogue)
    assert not any(word in plain for word in ("Denoising", "Mask", "Init", "Hires"))


def test_of_other_programs_what_we_cannot_have_is_named(catalogue: Catalogue) -> None:
    text = "a cat\nSteps: 20, Sampler: Euler, Seed: 1, Denoising strength: 0.35, Hires upscale: 2, Hires steps: 12, "
    found = request_from_infotext(text + "Hires upscaler: R-ESRGAN 4x+", catalogue)
    assert (found.request.hires_scale, found.request.hires_strength, found.request.hires_steps) == (2, 0.35, 12)
    assert found.left_out == ("upscaler R-ESRGAN 4x+",)
    text = "a cat\nSteps: 20, Sampler: Euler, Seed: 1, Denoising strength: 0.35, Init image hash: 1a2b3c4d5e"
    found = request_from_infotext(text, catalogue)
    assert (found.request.init_image, found.left_out) == ("", ("the picture that it started from",))


def test_an_ordinary_recipe_is_named_as_before(catalogue: Catalogue) -> None:
    old = recipe().model_dump(mode="json")
    for field in [name for name in old if name.startswith(("init_", "mask", "hires_", "strength"))]:
        del old[field]
    assert ResolvedRequest.model_validate(old) == recipe()
    assert recipe_sha256(recipe(), "a", "") == recipe_sha256(ResolvedRequest.model_validate(old), "a", "")
    idle = {"prompt": "x", "strength": 0.2, "mask_blur": 9, "hires_strength": 0.9, "hires_steps": 7, "seed": 1}
    assert catalogue.resolve(GenerationRequest(**idle)) == catalogue.resolve(GenerationRequest(prompt="x", seed=1))


def drawn_over(services: Services, **values: object) -> tuple[Image.Image, ImageRecord]:
    (first,) = services.generate("a red circle on a white background", **QUICK)
    source = opened(services.gallery.path(first))
    (second,) = services.generate("a blue circle on a white background", init_image=source, **{**QUICK, **values})
    return source, second


def test_a_file_says_what_it_was_made_over(services: Services, catalogue: Catalogue) -> None:
    _, made = drawn_over(services, strength=0.5)
    path = services.gallery.path(made)
    assert b"compositeWithTrainedAlgorithmicMedia" in path.read_bytes()
    assert services.catalogue.resolve(read_settings(path, catalogue).request) == made.recipe
    (plain,) = services.generate("a red circle on a white background", **QUICK)
    assert b"composite" not in services.gallery.path(plain).read_bytes()


@pytest.mark.parametrize("values", [{"strength": 0.5}, {"outpaint_right": 32, "strength": 1.0}])
def test_it_is_reproduced_to_the_byte_and_not_drawn_twice(services: Services, values: dict[str, object]) -> None:
    _, made = drawn_over(services, **values)
    assert services.reproduction.submit(made.id).result()["judgement"] == "identical"
    assert drawn_over(services, **values)[1].id == made.id


def test_pixels_outside_a_mask_and_inside_borders_are_those_of_the_source(services: Services) -> None:
    mask = Image.new("L", (128, 128), 0)
    mask.paste(255, (64, 0, 128, 128))
    source, made = drawn_over(services, mask=mask, strength=1.0)
    before, after = np.asarray(source), np.asarray(opened(services.gallery.path(made)))
    assert np.array_equal(before[:, :64], after[:, :64]) and not np.array_equal(before, after)
    source, made = drawn_over(services, outpaint_left=32, outpaint_up=16, strength=1.0)
    after = np.asarray(opened(services.gallery.path(made)))
    assert after.shape == (144, 160, 3)
    assert np.array_equal(np.asarray(source), after[16:, 32:])


def test_a_job_that_waited_over_a_restart_has_its_source(settings: Settings, engine: Engine) -> None:
    with open_services(settings, engine=EngineHolder(lambda: engine)) as services:
        services.runner.stop(timeout=10)
        name = services.sources.take(picture(size=128), "local")
        asked = GenerationRequest(prompt="a red circle", init_image=name, strength=0.5, **QUICK)
        waiting = services.generation.submit(asked).id
    with open_services(settings, engine=EngineHolder(lambda: engine)) as services:
        job = services.runner.job(waiting)
        job.result()
        (made,) = services.gallery.of_job(waiting)
        assert made.recipe.init_image == name


def test_a_source_that_is_gone_is_told_when_asked_and_when_drawn(services: Services, settings: Settings) -> None:
    name = services.sources.take(picture(size=128), "local")
    asked = GenerationRequest(prompt="a red circle", init_image=name, **QUICK)
    services.runner.stop(timeout=10)
    job = services.generation.submit(asked)
    for path in settings.sources_dir.rglob("*.png"):
        path.unlink()
    with pytest.raises(NotFound, match="not kept here"):
        services.generation.submit(asked)
    services.runner.start()
    with pytest.raises(Exception, match="not kept here any more"):
        job.result()


def test_sources_that_nothing_names_go_after_a_while(services: Services, settings: Settings) -> None:
    kept = services.generate("a red heart", init_image=picture(size=128), strength=0.5, **QUICK)[0].recipe.init_image
    old, new = (services.sources.keep(Image.new("RGB", (64, 64), colour), "local") for colour in ("red", "blue"))
    for name in (kept, old):
        os.utime(next(settings.sources_dir.glob(f"*/{name}.png")), (0, 0))
    open_services(settings, queue="another").close()
    left = {path.stem for path in settings.sources_dir.glob("*/*.png")}
    assert kept in left and new in left and old not in left


def test_the_second_pass_is_a_larger_picture(services: Services) -> None:
    (made,) = services.generate("a red circle on a white background", hires_scale=1.5, **QUICK)
    assert opened(services.gallery.path(made)).size == (192, 192) == made.recipe.final_size
    assert (made.recipe.width, made.recipe.hires_steps, made.recipe.evaluations) == (128, 4, 10)
    assert services.reproduction.submit(made.id).result()["judgement"] == "identical"


def test_an_accelerator_draws_over_a_picture_and_a_second_pass_too(services: Services) -> None:
    quick = {"accelerator": "flash-pocket-sd15", "num_inference_steps": 4, "seed": 5}
    (first,) = services.generate("a red circle on a white background", hires_scale=1.5, hires_strength=0.5, **quick)
    assert first.recipe.evaluations == 6
    source = opened(services.gallery.path(first))
    (second,) = services.generate("a blue circle on a white background", init_image=source, strength=0.05, **quick)
    assert (second.recipe.width, second.recipe.evaluations) == (192, 1)


def test_the_command_line_takes_files(cli: Cli, tmp_path: Path) -> None:
    picture(size=128).save(tmp_path / "in.png")
    mask = Image.new("L", (128, 128), 0)
    mask.paste(255, (0, 64, 128, 128))
    mask.save(tmp_path / "mask.png")
    quick = ("a red circle on a white background", "--steps", "2", "--seed", "5", "--out", str(tmp_path), "--quiet")
    start = ("--init-image", str(tmp_path / "in.png"))
    code, stdout, _ = cli("generate", *quick, *start, "--mask", str(tmp_path / "mask.png"), "--mask-blur", "0")
    assert code == 0
    made = np.asarray(opened(Path(stdout.strip())))
    assert np.array_equal(made[:64], np.asarray(picture(size=128))[:64])
    code, stdout, _ = cli("generate", *quick, *start, "--outpaint", "left=32,down=16")
    assert opened(Path(stdout.strip())).size == (160, 144)
    code, _, stderr = cli("generate", *quick, *start, "--outpaint", "left=5")
    assert code == 2 and stderr.startswith("error: Pixels to add on the left is 5;") and "(--outpaint)" in stderr
    code, _, stderr = cli("generate", *quick, "--init-image", str(tmp_path / "nothing.png"))
    assert code == 2 and "nothing.png cannot be read: no such file" in stderr and "(--init-image)" in stderr
    code, _, stderr = cli("generate", *quick, "--mask", str(tmp_path / "mask.png"))
    assert code == 2 and "There is a mask, and no picture" in stderr and "(--mask)" in stderr
