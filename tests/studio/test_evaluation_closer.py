"""A closer look at an evaluation: a second judge, how alike pictures are, pairs, kinds of prompts, and results that are
told again."""

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from statsmodels.stats.multitest import multipletests

from engines.base import Engine
from engines.pocket.grammar import parse
from engines.pocket.world import render
from studio.domain.cells import CellResult, Opinion
from studio.domain.errors import InvalidRequest
from studio.domain.evaluation import Evaluation, EvaluationCell, parse_evaluation
from studio.domain.events import Finished
from studio.domain.run_files import CHECKPOINTS, checkpoint_name
from studio.domain.training import parse_training
from studio.evaluation import Standing
from studio.evaluation_closer import groups_html, likeness_html, pairs_html
from studio.evaluation_export import document, rows_csv
from studio.evaluation_groups import by_group, every_pair
from studio.evaluation_scores import agreement, analyse
from studio.evaluation_views import table_html, verdict_html
from studio.gallery import NewImage
from studio.generation import EngineHolder
from studio.paired import benjamini_hochberg, holm, sign_flip
from studio.run_adapters import checkpoint_adapter
from studio.scoring import POCKET_JUDGE
from studio.services import Services, open_services
from studio.settings import PROJECT_ROOT, Settings
from tests.studio.adapter_files import adapter_file

PATIENCE_S = 600
FLASH = "flash-pocket-sd15"
TWO = {
    "systems": [
        {"name": "twelve", "num_inference_steps": 12},
        {"name": "one", "num_inference_steps": 1, "accelerator": FLASH},
    ],
    "num_prompts": 6,
    "num_images": 2,
}  # fmt: skip
LEARNT = PROJECT_ROOT / "examples" / "crescents"


def second_judge(folder: Path) -> None:
    """A judge of another mind than ours, if not by much: its weights are a little blurred."""
    shutil.copytree(POCKET_JUDGE, folder)
    (weights,) = folder.glob("*.safetensors")
    generator = torch.Generator().manual_seed(3)
    tensors = {
        name: tensor + 0.02 * tensor.std() * torch.randn(tensor.shape, generator=generator)
        if tensor.is_floating_point() and tensor.ndim > 1
        else tensor
        for name, tensor in load_file(weights).items()
    }
    save_file(tensors, weights)


@pytest.fixture(scope="module")
def studio(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), offline=True)
    second_judge(settings.judges_dir / "blurred")
    with open_services(settings, engine=EngineHolder(lambda: engine)) as opened:
        yield opened


@pytest.fixture(scope="module")
def done(studio: Services) -> Standing:
    begun = studio.evaluations.submit(parse_evaluation({**TWO, "second_judge": "blurred"}))
    assert isinstance(begun.job.wait(timeout=PATIENCE_S), Finished)
    return studio.evaluations.standing(begun.id)


def test_a_second_judge_has_its_say_on_every_picture(studio: Services, done: Standing) -> None:
    results = done.results
    assert len(results) == 24
    ours = np.array([result.cosine for result in results.values()])
    theirs = np.array([result.second and result.second.cosine for result in results.values()], float)
    assert not np.allclose(ours, theirs, atol=1e-4) and np.corrcoef(ours, theirs)[0, 1] > 0.8
    assert all(result.second and result.second.judge.startswith("blurred ") for result in results.values())
    analysis = studio.evaluations.analysis(done)
    assert analysis.second_judge.startswith("blurred ") and set(analysis.systems[1].against) == {
        "right",
        "clip",
        "second",
    }
    assert agreement(analysis) == "The second judge agrees on which is ahead."
    assert "agrees on which is ahead" in verdict_html(analysis)
    table = table_html(analysis)
    assert "Second judge: difference" in table and "Second judge: blurred " in table


def test_judges_that_do_not_agree_are_told(studio: Services) -> None:
    evaluation = studio.evaluations.resolve(parse_evaluation({**TWO, "num_prompts": 20}))
    results = {
        cell.index: CellResult(
            index=cell.index, judge="a", cosine=0.3 + 0.1 * (cell.system.name == "one") + 0.001 * cell.place,
            second=Opinion(judge="b", cosine=0.3 - 0.1 * (cell.system.name == "one") + 0.001 * cell.place),
        )
        for cell in evaluation.cells
    }  # fmt: skip
    assert agreement(analyse(evaluation, results)) == "The second judge finds the opposite ahead for one."


def test_a_judge_is_no_second_to_itself(studio: Services) -> None:
    with pytest.raises(InvalidRequest, match="pocket-clip is both judges"):
        studio.evaluations.resolve(parse_evaluation({**TWO, "second_judge": "pocket-clip"}))
    with pytest.raises(InvalidRequest, match="no judge called 'nobody'"):
        studio.evaluations.resolve(parse_evaluation({**TWO, "second_judge": "nobody"}))


# How alike pictures are

Draw = Callable[[EvaluationCell], Image.Image]


def planted(services: Services, systems: Mapping[str, Draw], asked: list[dict[str, Any]]) -> Standing:
    """An evaluation of 8 prompts × 3 whose systems draw as they are told, and what is measured of it."""
    services.runner.stop(timeout=10)
    begun = services.evaluations.submit(parse_evaluation({"systems": asked, "num_prompts": 8, "num_images": 3}))
    for cell in begun.evaluation.cells:
        new = NewImage(
            job_id=begun.id, visitor="local", image_index=cell.index, recipe=cell.recipe, prompt_as_run=cell.text,
            negative_as_run="", environment={}, seconds={"total": 1.0}, peak_memory_mb=1.0,
        )  # fmt: skip
        record = services.gallery.save(systems[cell.system.name](cell), new)
        right = cell.system.name in ("base", "frozen")
        begun.folder.note(CellResult(index=cell.index, image_id=record.id, right=right, cosine=0.5))
    services.runner.start()  # which finds all of it drawn, and judges it
    assert isinstance(services.runner.job(begun.id).wait(timeout=PATIENCE_S), Finished)
    return services.evaluations.standing(begun.id)


def exact(cell: EvaluationCell, seed: int) -> Image.Image:
    scene = parse(cell.text)
    assert scene is not None
    return render(scene, seed)


def as_asked(cell: EvaluationCell) -> Image.Image:
    return exact(cell, cell.recipe.seed)


def test_one_that_draws_the_same_for_every_seed_is_told(services: Services) -> None:
    asked = [{"name": "base"}, {"name": "frozen", "num_inference_steps": 9}]
    systems: dict[str, Draw] = {"base": as_asked, "frozen": lambda cell: exact(cell, cell.place)}
    standing = planted(services, systems, asked)
    base, frozen = services.evaluations.analysis(standing).likenesses
    assert base.varied and base.varied.n == 8 and base.varied.value > 0.01
    assert frozen.varied and frozen.varied.value == pytest.approx(0, abs=1e-5)
    assert frozen.against and frozen.against.verdict == "worse"
    assert frozen.to_baseline and 0.5 < frozen.to_baseline.value < 0.999 and base.to_baseline is None
    page = likeness_html(services.evaluations.analysis(standing))
    assert "Variety: difference" in page and "learnt" not in page


def test_one_that_draws_its_training_pictures_is_told_and_its_control_is_not(services: Services) -> None:
    services.trainer.stop(timeout=10)
    run = services.training.submit(parse_training({"name": "Mine", "folder": str(LEARNT), "num_steps": 60}))
    (run.folder / CHECKPOINTS).mkdir()
    adapter_file(run.folder / CHECKPOINTS / checkpoint_name(10), scale=0.1)
    pictures = sorted(LEARNT.glob("*.png"))
    systems: dict[str, Draw] = {
        "base": as_asked,
        "copies": lambda cell: Image.open(pictures[cell.place % 4]).convert("RGB"),
    }
    asked = [
        {"name": "base"},
        {"name": "copies", "adapters": [{"adapter": checkpoint_adapter(services.training.run_of(run.id), 10)}]},
    ]
    standing = planted(services, systems, asked)
    analysis = services.evaluations.analysis(standing)
    _, copies = analysis.likenesses
    assert copies.near and copies.near.value == 1 and copies.near_without and copies.near_without.value < 0.2
    assert copies.may_have_learnt_by_heart
    assert "copies may have learnt its pictures by heart" in likeness_html(analysis)
    rows = list(csv.DictReader(io.StringIO(rows_csv(standing.findings))))
    named = {row["nearest"].rpartition("/")[2] for row in rows if row["system"] == "copies"}
    assert named == {picture.name for picture in pictures[:4]}
    assert all(float(row["cosine_to_nearest"]) > 0.999 for row in rows if row["system"] == "copies")


# Pairs and kinds


def drawn(evaluation: Evaluation, chance: Callable[[EvaluationCell], float]) -> dict[int, CellResult]:
    rng = np.random.default_rng(8)
    return {
        cell.index: CellResult(index=cell.index, right=bool(rng.random() < chance(cell)), image_id="x")
        for cell in evaluation.cells
    }


def test_every_pair_is_compared_and_corrected_for_all(studio: Services) -> None:
    systems = [{"name": "a"}, {"name": "b", "num_inference_steps": 9}, {"name": "c", "num_inference_steps": 8}]
    asked = {"systems": systems, "num_prompts": 60, "num_images": 1}
    evaluation = studio.evaluations.resolve(parse_evaluation(asked))
    chances = {"a": 0.9, "b": 0.9, "c": 0.4}
    analysis = analyse(evaluation, drawn(evaluation, lambda cell: chances[cell.system.name]))
    pairs = every_pair(analysis, "right")
    assert [(pair.first, pair.second) for pair in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [pair.paired.verdict for pair in pairs] == ["undecided", "better", "better"]
    values = {each.system.name: each.by_prompt["right"] for each in analysis.systems}
    p_values = [
        sign_flip([values[one][place] - values[other][place] for place in analysis.places])
        for one, other in (("a", "b"), ("a", "c"), ("b", "c"))
    ]
    assert [pair.paired.adjusted for pair in pairs] == pytest.approx(holm(p_values))
    page = pairs_html(analysis)
    assert "Every pair" in page and "all 3 pairs" in page
    two = analyse(*(lambda each: (each, drawn(each, lambda _: 0.9)))(resolved_two(studio)))
    assert every_pair(two, "right") == () and pairs_html(two) == ""


def resolved_two(studio: Services) -> Evaluation:
    return studio.evaluations.resolve(parse_evaluation({**TWO, "num_prompts": 30}))


def test_a_kind_of_prompt_that_alone_goes_wrong_stands_out(studio: Services) -> None:
    evaluation = studio.evaluations.resolve(parse_evaluation({**TWO, "num_prompts": 200, "num_images": 1}))
    groups = [prompt.group for prompt in evaluation.prompts]
    spoilt = max(set(groups), key=groups.count)
    chance = {True: 0.1, False: 0.9}
    results = drawn(
        evaluation,
        lambda cell: chance[cell.system.name == "one" and evaluation.prompts[cell.place].group == spoilt],
    )
    found = {each.group: each for each in by_group(analyse(evaluation, results), "right")}
    assert found.keys() == set(groups) and sum(each.n for each in found.values()) == 200
    assert found[spoilt].against["one"].verdict == "worse"
    assert all(each.against["one"].verdict != "worse" for group, each in found.items() if group != spoilt)
    page = groups_html(analyse(evaluation, results))
    assert f"{spoilt} (" in page and "To explore" in page
    own = parse_evaluation({**TWO, "prompts": ["a red circle", "a blue star"]})
    alike = studio.evaluations.resolve(own)
    assert by_group(analyse(alike, drawn(alike, lambda _: 0.5)), "right") == (), "one kind is no kind"


def test_false_discoveries_are_corrected_as_statsmodels_does() -> None:
    p_values = [0.001, 0.04, 0.03, 0.2, 0.9, 0.012]
    assert benjamini_hochberg(p_values) == pytest.approx(multipletests(p_values, method="fdr_bh")[1])
    assert benjamini_hochberg([]) == []


# Told again


@pytest.fixture
def file(studio: Services, done: Standing, tmp_path: Path) -> Path:
    path = tmp_path / "results.json"
    path.write_text(document(done.findings, studio.evaluations.pictures(done)), encoding="utf-8")
    return path


def test_results_are_told_again_with_the_pictures_that_are_here(studio: Services, done: Standing, file: Path) -> None:
    count = studio.gallery.count()
    taken = studio.evaluations.take_in(file, "local", "local")
    assert taken.id != done.id and not taken.is_running and taken.is_taken_in and not done.is_taken_in
    assert table_html(studio.evaluations.analysis(taken)) == table_html(studio.evaluations.analysis(done))
    assert likeness_html(studio.evaluations.analysis(taken)) == likeness_html(studio.evaluations.analysis(done))
    theirs = {record.id for record in studio.evaluations.pictures(done).values()}
    assert {record.id for record in studio.evaluations.pictures(taken).values()} == theirs
    assert studio.gallery.count() == count and taken.folder.anchors == done.folder.anchors
    assert studio.evaluations.of()[0].id == taken.id


def test_a_file_gives_nobody_another_ones_pictures(studio: Services, file: Path) -> None:
    taken = studio.evaluations.take_in(file, "guest", "guest")
    assert studio.evaluations.pictures(taken) == {} and not any(each.image_id for each in taken.results.values())
    assert len(studio.evaluations.analysis(taken).places) == 6, "the numbers are there all the same"


@pytest.mark.parametrize(
    "harm",
    [
        {"num_images": 10**9},
        {"baseline": "nobody"},
        {"systems": []},
        {"prompts": []},
        {"axes": [{"field": "num_inference_steps", "values": [1, 2]}]},
    ],
    ids=str,
)
def test_a_file_that_no_evaluation_wrote_is_refused(studio: Services, file: Path, harm: dict[str, Any]) -> None:
    values = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**values, "evaluation": {**values["evaluation"], **harm}}), encoding="utf-8")
    before = len(studio.evaluations.of())
    with pytest.raises(InvalidRequest, match="no evaluation of this studio"):
        studio.evaluations.take_in(file)
    assert len(studio.evaluations.of()) == before


@pytest.mark.parametrize("text", ["", "[]", "{}", '"x"', "[" * 100_000, '{"evaluation": 1, "results": NaN}'], ids=len)
def test_a_file_of_anything_else_is_refused(studio: Services, tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text, encoding="utf-8")
    with pytest.raises(InvalidRequest, match=r"results\.json is no evaluation"):
        studio.evaluations.take_in(tmp_path / "results.json")
