"""Bad values are refused in one sentence that names the control; good ones survive every round trip."""

import math

import pytest

from studio.domain.errors import InvalidRequest
from studio.domain.request import (
    MAX_SEED,
    GenerationRequest,
    ResolvedRequest,
    bounds,
    label,
    parse_request,
)

BAD = [
    ({"prompt": ""}, "prompt", "no prompt"),
    ({"prompt": " \n"}, "prompt", "no prompt"),
    ({}, "prompt", "no prompt"),
    ({"prompt": "x" * 10_001}, "prompt", "10,001 characters"),
    ({"prompt": "x", "num_inference_steps": 0}, "num_inference_steps", "Steps is 0; it must be a whole number from 1"),
    ({"prompt": "x", "num_inference_steps": 2.5}, "num_inference_steps", "Steps is 2.5"),
    ({"prompt": "x", "width": 7}, "width", "Width is 7"),
    ({"prompt": "x", "height": 100}, "height", "multiple of 8"),
    ({"prompt": "x", "width": "wide"}, "width", "'wide'"),
    ({"prompt": "x", "guidance_scale": math.inf}, "guidance_scale", "Guidance scale is inf"),
    ({"prompt": "x", "guidance_scale": math.nan}, "guidance_scale", "Guidance scale is nan"),
    ({"prompt": "x", "seed": -2}, "seed", "from -1 to 4294967295"),
    ({"prompt": "x", "seed": 2**32}, "seed", "Seed is 4294967296"),
    ({"prompt": "x", "num_images": 65}, "num_images", "from 1 to 64"),
    ({"prompt": "x", "decoder": "huge"}, "decoder", "Decoder is 'huge'; it must be full or half or tiny."),
    ({"prompt": "x", "colour": "red"}, "colour", "no setting called 'colour'"),
]


@pytest.mark.parametrize(("values", "field", "words"), BAD)
def test_a_bad_value_is_named_with_what_it_may_be(values: dict[str, object], field: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_request(values)
    assert caught.value.field == field
    assert words in str(caught.value)


def test_zero_is_a_value_and_not_a_missing_one() -> None:
    request = parse_request({"prompt": "x", "seed": 0, "guidance_scale": 0})
    assert (request.seed, request.guidance_scale) == (0, 0.0)


def test_seeds_count_up_and_wrap(catalogue) -> None:
    recipe = catalogue.resolve(GenerationRequest(prompt="x", seed=MAX_SEED, num_images=2))
    assert [recipe.single(index).seed for index in range(2)] == [MAX_SEED, 0]
    assert recipe.single(1).num_images == 1


def test_a_recipe_resolves_to_itself(catalogue) -> None:
    recipe = catalogue.resolve(GenerationRequest(prompt="x", style="on_navy", num_images=3))
    assert catalogue.resolve(recipe.as_request()) == recipe
    assert ResolvedRequest.model_validate_json(recipe.model_dump_json()) == recipe


def test_every_numeric_field_has_bounds_and_a_name() -> None:
    for field in ("width", "height", "num_inference_steps", "guidance_scale", "seed", "num_images"):
        low, high, _ = bounds(field)
        assert low is not None and high is not None and low < high
        assert label(field)[0].isupper()
