"""Sweeps: values as people type them, every combination drawn, the best named with what equals it, a page to turn."""

import json
import re
import tomllib

import pytest

from studio.domain.catalogue import Catalogue
from studio.domain.cells import CellResult
from studio.domain.errors import InvalidRequest
from studio.domain.evaluation import Evaluation, parse_evaluation
from studio.domain.sweep import parse_axis
from studio.evaluation_export import Findings, image_rows, manifest
from studio.evaluation_scores import analyse
from studio.evaluation_systems import resolve_evaluation
from studio.sweep_page import sweep_page
from studio.sweep_views import sweep_html, sweep_words

THREE = [
    {"field": "num_inference_steps", "values": [2, 4, 8]},
    {"field": "guidance_scale", "values": [1, 3]},
    {"field": "checkpoint", "values": ["pocket-sd15", "pocket-sd21"]},
]


def swept(catalogue: Catalogue, axes: list[dict] = THREE, count: int = 40, **system: object) -> Evaluation:
    request = parse_evaluation({"systems": [system], "axes": axes, "num_prompts": count, "num_images": 1})
    return resolve_evaluation(request, catalogue, "pocket-clip")


@pytest.mark.parametrize(
    ("field", "text", "values"),
    [
        ("num_inference_steps", "2, 4,8", (2, 4, 8)),
        ("num_inference_steps", "2-10 (+2)", (2, 4, 6, 8, 10)),
        ("num_inference_steps", "1-3, 8, 3", (1, 2, 3, 8)),
        ("guidance_scale", "1-4 [4]", (1.0, 2.0, 3.0, 4.0)),
        ("guidance_scale", "4-2 (-1)", (4.0, 3.0, 2.0)),
        ("lora_scale", "0-1 (+0.25)", (0.0, 0.25, 0.5, 0.75, 1.0)),
        ("scheduler", "euler, dpmpp_2m_karras", ("euler", "dpmpp_2m_karras")),
        ("negative_prompt", ", blurry", ("", "blurry")),
    ],
)
def test_values_are_read_as_people_type_them(field: str, text: str, values: tuple) -> None:
    assert parse_axis(field, text).values == values


@pytest.mark.parametrize(
    ("field", "text", "said"),
    [
        ("guidance_scale", "high", "cannot be 'high'; it takes numbers"),
        ("num_inference_steps", "2.5", "it takes whole numbers"),
        ("num_inference_steps", "8-2 (+2)", "whole numbers"),
        ("num_inference_steps", " ", "takes 0 values"),
        ("num_inference_steps", "1-100", "takes 25 values"),
        ("mood", "happy", "'mood' cannot be swept"),
    ],
)
def test_what_cannot_be_read_is_said(field: str, text: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        parse_axis(field, text)


def test_every_combination_is_a_system_and_models_change_least_often(catalogue: Catalogue) -> None:
    evaluation = swept(catalogue)
    assert len(evaluation.systems) == 12 and len({system.at for system in evaluation.systems}) == 12
    models = [system.recipe.checkpoint for system in evaluation.systems]
    assert models == sorted(models), "the checkpoint is changed once"
    for system in evaluation.systems:
        steps, guidance, model = (axis["values"][at] for axis, at in zip(THREE, system.at, strict=True))
        assert system.recipe.num_inference_steps == steps and system.recipe.guidance_scale == guidance
        assert system.recipe.checkpoint == model
    assert evaluation.systems[0].name == "2 steps · guidance 1 · pocket-sd15"
    again = parse_evaluation(tomllib.loads(manifest(evaluation)))
    assert resolve_evaluation(again, catalogue, "pocket-clip") == evaluation


def test_a_scale_of_nothing_is_the_model_alone(catalogue: Catalogue) -> None:
    axes = [{"field": "lora_scale", "values": [0, 0.5, 1]}]
    evaluation = swept(catalogue, axes, adapters=[{"adapter": "mine", "lora_scale": 0.8}])
    assert [[use.lora_scale for use in system.adapters] for system in evaluation.systems] == [[], [0.5], [1.0]]
    with pytest.raises(InvalidRequest, match="there is no adapter"):
        swept(catalogue, axes)


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ([THREE[0], THREE[0]], "Two axes sweep the same setting"),
        (
            [{"field": name, "values": list(range(1, 12))} for name in ("num_inference_steps", "guidance_scale")],
            "121 combinations",
        ),
        ([{"field": "mood", "values": ["x"]}], "An axis does not work"),
        ([*THREE, {"field": "style", "values": ["none"]}], "at most three"),
    ],
)
def test_what_cannot_be_swept_is_said(catalogue: Catalogue, axes: list[dict], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        swept(catalogue, axes)


def told(evaluation: Evaluation, shares: dict[tuple[int, ...], float]) -> dict[int, CellResult]:
    """As if each system had drawn such a share of its prompts right, by its place; 0.3 where none is given."""
    count = len(evaluation.prompts)
    right = {cell.index: (cell.place + 0.5) / count < shares.get(cell.system.at, 0.3) for cell in evaluation.cells}
    return {
        index: CellResult(index=index, image_id="x", cosine=0.5, right=is_right) for index, is_right in right.items()
    }


def test_the_best_is_named_with_those_that_equal_it(catalogue: Catalogue) -> None:
    evaluation = swept(catalogue)
    analysis = analyse(evaluation, told(evaluation, {(2, 1, 0): 0.95, (1, 1, 0): 0.9}))
    words = sweep_words(analysis)
    assert words.startswith("Best by drawn right is 8 steps · guidance 3 · pocket-sd15: 95.0 %")
    assert "1 of 11 others cannot be told from it: 4 steps · guidance 3 · pocket-sd15." in words
    shown = sweep_html(analysis)
    assert shown.count("<table") == 2 and shown.count("<strong>") == 12, "one table for each model"
    assert "too few" in sweep_words(analyse(swept(catalogue, count=3), told(swept(catalogue, count=3), {})))


def test_rows_carry_the_place_on_each_axis(catalogue: Catalogue) -> None:
    evaluation = swept(catalogue, count=6)
    row = image_rows(Findings(evaluation=evaluation, results=told(evaluation, {})))[-1]
    assert (row["num_inference_steps"], row["guidance_scale"], row["checkpoint"]) == ("8", "3", "pocket-sd21")


def test_the_page_to_turn_runs_its_own_script_alone(catalogue: Catalogue) -> None:
    request = {"systems": [{}], "axes": THREE, "prompts": ["</script><script>alert(1)</script>"], "num_images": 1}
    evaluation = resolve_evaluation(parse_evaluation(request), catalogue, "")
    page = sweep_page(analyse(evaluation, told(evaluation, {})), told(evaluation, {}), lambda cell: None)
    assert page.count("<script") == 2 and "script-src 'sha256-" in page and "alert(1)" in page
    data = re.search(r'id="data">(.*?)</script>', page)
    assert data and [axis["title"] for axis in json.loads(data[1])["axes"]][-2:] == ["Prompt", "Picture"]
