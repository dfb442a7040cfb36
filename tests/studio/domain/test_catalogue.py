"""Every row of the catalogue holds together, and what is left open is decided by the checkpoint's row."""

import diffusers
import pytest

from engines.pocket.grammar import parse, unknown_words
from studio.domain.catalogue import Catalogue
from studio.domain.errors import InvalidRequest, NotFound
from studio.domain.request import GenerationRequest


def test_every_checkpoint_row_holds_together(catalogue: Catalogue) -> None:
    for row in catalogue.checkpoints:
        assert catalogue.family(row.family)
        assert catalogue.scheduler(row.default_scheduler)
        assert row.min_size <= row.native_size <= row.max_size
        assert (row.folder is None) != (row.hub_id is None)
        assert row.licence and row.note and row.examples
        assert catalogue.resolve(GenerationRequest(prompt=row.examples[0], checkpoint=row.id)).width == row.native_size


def test_ids_are_unique(catalogue: Catalogue) -> None:
    rows_of = (
        catalogue.families,
        catalogue.checkpoints,
        catalogue.schedulers,
        catalogue.accelerators,
        catalogue.styles,
    )
    for rows in rows_of:
        ids = [row.id for row in rows]
        assert len(ids) == len(set(ids))


def test_every_scheduler_exists_with_its_options(catalogue: Catalogue) -> None:
    for row in catalogue.schedulers:
        scheduler = getattr(diffusers, row.class_name)(**row.options)
        assert all(scheduler.config[name] == value for name, value in row.options.items())


def test_examples_of_pocket_models_use_only_words_they_know(catalogue: Catalogue) -> None:
    for row in catalogue.checkpoints:
        for example in row.examples if row.is_pocket else ():
            assert parse(example) is not None
            assert unknown_words(example) == ()


def test_defaults_come_from_the_checkpoint(catalogue: Catalogue) -> None:
    recipe = catalogue.resolve(GenerationRequest(prompt="x"))
    row = catalogue.checkpoint(catalogue.default_checkpoint)
    assert (recipe.num_inference_steps, recipe.guidance_scale) == (row.default_steps, row.default_guidance)
    assert recipe.scheduler == row.default_scheduler
    assert recipe.seed >= 0


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"width": 512}, "width", "from 64 to 256 px"),
        ({"checkpoint": "nope"}, "checkpoint", "Known: pocket-sd15"),
        ({"scheduler": "nope"}, "scheduler", "dpmpp_2m_karras"),
        ({"style": "photograph"}, "style", "on_white"),
        ({"accelerator": "nope"}, "accelerator", "Known: "),
        ({"checkpoint": "sd21", "accelerator": "lcm-sdxl"}, "accelerator", "There is none for it yet."),
        ({"checkpoint": "sd15", "accelerator": "lcm-sdxl"}, "accelerator", "(Flash SD, LCM LoRA for SD 1.5, Hyper-SD"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    catalogue: Catalogue, values: dict[str, object], field: str, words: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        catalogue.resolve(GenerationRequest(prompt="x", **values))
    assert caught.value.field == field
    assert words in str(caught.value)


def test_a_style_wraps_the_prompt_and_keeps_it(catalogue: Catalogue) -> None:
    recipe = catalogue.resolve(GenerationRequest(prompt="a red circle", style="on_navy", negative_prompt="blue"))
    assert recipe.prompt == "a red circle"
    assert catalogue.styled(recipe) == ("a red circle on a navy background", "blue")


def test_braces_in_a_prompt_are_only_text(catalogue: Catalogue) -> None:
    recipe = catalogue.resolve(GenerationRequest(prompt="a {prompt} {0} circle", style="on_white"))
    assert catalogue.styled(recipe)[0] == "a {prompt} {0} circle on a white background"


def test_an_unknown_id_lists_what_is_known(catalogue: Catalogue) -> None:
    with pytest.raises(NotFound, match="Known: pocket-sd15"):
        catalogue.checkpoint("x")


def test_a_sampler_refuses_more_steps_than_it_has(catalogue: Catalogue) -> None:
    def resolve(steps: int) -> int:
        request = GenerationRequest(prompt="a red circle", scheduler="lcm", num_inference_steps=steps)
        return catalogue.resolve(request).num_inference_steps

    assert resolve(50) == 50
    with pytest.raises(InvalidRequest, match="Steps is 51; LCM takes at most 50") as caught:
        resolve(51)
    assert caught.value.field == "num_inference_steps"


def test_every_accelerator_row_holds_together(catalogue: Catalogue) -> None:
    for row in catalogue.accelerators:
        assert catalogue.family(row.family)
        assert row.checkpoint is None or catalogue.checkpoint(row.checkpoint).family == row.family
        assert (row.file is None) != (row.hub_id is None) and (row.hub_id is None) != bool(row.hub_files)
        assert row.default_steps in row.trained_steps == tuple(sorted(row.trained_steps))
        assert row.default_guidance <= row.max_guidance
        assert row.licence and row.note
        assert catalogue.scheduler(row.scheduler).class_name == "LCMScheduler" or row.grid is None
        assert row.remarks(row.default_steps, row.default_guidance, row.scheduler) == ()
        checkpoint = next(checkpoint for checkpoint in catalogue.checkpoints if row.suits(checkpoint))
        assert row in catalogue.accelerators_for(checkpoint)


def test_an_accelerator_decides_what_is_left_open(catalogue: Catalogue) -> None:
    def resolve(**values: object) -> tuple[int, float, str]:
        asked = GenerationRequest(prompt="x", checkpoint="sd15", accelerator="lcm-sd15", **values)
        recipe = catalogue.resolve(asked)
        assert recipe.accelerator == "lcm-sd15"
        return recipe.num_inference_steps, recipe.guidance_scale, recipe.scheduler

    assert resolve() == (4, 1.0, "lcm")
    assert resolve(num_inference_steps=3, guidance_scale=5.0, scheduler="euler") == (3, 5.0, "euler")
    assert catalogue.resolve(GenerationRequest(prompt="x")).accelerator == "none"


def test_what_an_accelerator_was_not_made_for_is_said(catalogue: Catalogue) -> None:
    lcm, hyper = catalogue.accelerator("lcm-sd15"), catalogue.accelerator("hyper-sd15")
    assert lcm and hyper
    assert lcm.remarks(8, 2.0, "lcm") == ()
    (steps,) = lcm.remarks(30, 1.0, "lcm")
    assert steps == "LCM LoRA for SD 1.5 was made for 2 to 8 steps; 30 may come out unfinished or overdone."
    (guidance,) = lcm.remarks(4, 7.5, "lcm")
    assert "guidance up to 2; 7.5 overdoes" in guidance
    assert "2, 4 or 8 steps" in hyper.remarks(3, 1.0, "ddim_trailing")[0]
    assert "guidance off (1)" in hyper.remarks(4, 1.5, "ddim_trailing")[0]
    assert "another sampler" in hyper.remarks(4, 1.0, "euler")[0]


def test_the_file_of_an_accelerator_is_that_of_the_nearest_number_of_steps(catalogue: Catalogue) -> None:
    hyper, flash = catalogue.accelerator("hyper-sd15"), catalogue.accelerator("flash-sd")
    assert hyper and flash
    files = [hyper.hub_file(steps).split("-")[2] for steps in (1, 2, 3, 4, 7, 30)]
    assert files == ["2steps", "2steps", "2steps", "4steps", "8steps", "8steps"]
    assert {flash.hub_file(steps) for steps in (1, 4, 9)} == {"pytorch_lora_weights.safetensors"}
    assert flash.timesteps(4) == (999, 749, 499, 249) and hyper.timesteps(4) is None
