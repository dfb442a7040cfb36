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
    for rows in (catalogue.families, catalogue.checkpoints, catalogue.schedulers, catalogue.styles):
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
