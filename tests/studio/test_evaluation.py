"""Systems beside each other on the same prompts: what is drawn, what is judged, what may be said of it."""

from collections.abc import Iterator

import numpy as np
import pytest

from engines.base import Engine
from studio.domain.cells import CellResult
from studio.domain.errors import InvalidRequest, NotFound
from studio.domain.evaluation import MAX_PICTURES, PRESETS, Evaluation, parse_evaluation
from studio.domain.events import Cancelled, Finished
from studio.evaluation import Standing
from studio.evaluation_scores import analyse, disagreement, headline
from studio.generation import EngineHolder
from studio.prompt_sets import PROMPT_SETS
from studio.services import Services, open_services
from studio.settings import Settings
from tests.studio.adapter_files import adapter_file

PATIENCE_S = 600
FLASH = "flash-pocket-sd15"
TWO = {
    "systems": [{"num_inference_steps": 12}, {"num_inference_steps": 1, "accelerator": FLASH}],
    "num_prompts": 7,
    "num_images": 1,
}
"""A model and what nearly spoils it."""


@pytest.fixture(scope="module")
def studio(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), offline=True)
    with open_services(settings, engine=EngineHolder(lambda: engine)) as opened:
        yield opened


def evaluated(studio: Services, **values: object) -> Standing:
    begun = studio.evaluations.submit(parse_evaluation({**TWO, **values}))
    assert begun.job is not None and isinstance(begun.job.wait(timeout=PATIENCE_S), Finished)
    return studio.evaluations.standing(begun.id)


@pytest.fixture(scope="module")
def done(studio: Services) -> Standing:
    return evaluated(studio)


def resolved(studio: Services, **values: object) -> Evaluation:
    return studio.evaluations.resolve(parse_evaluation({**TWO, **values}))


def told(evaluation: Evaluation, right: dict[str, list[float]], cosine: dict[str, list[float]] | None = None) -> dict:
    """Results as if pictures had been judged: by the name of the system a value for each prompt."""
    rng = np.random.default_rng(5)
    return {
        cell.index: CellResult(
            index=cell.index,
            image_id=str(cell.index),
            right=bool(rng.random() < right[cell.system.name][cell.place]) if right else None,
            cosine=cosine[cell.system.name][cell.place] if cosine else None,
            seconds=1.0,
        )
        for cell in evaluation.cells
    }


def test_all_systems_draw_the_same_prompts_with_the_same_seeds(studio: Services, done: Standing) -> None:
    cells = done.evaluation.cells
    pictures = studio.evaluations.pictures(done)
    assert sorted(pictures) == sorted(done.results) == [cell.index for cell in cells] == list(range(14))
    asked = {
        system.name: [(cell.recipe.prompt, cell.recipe.seed) for cell in cells if cell.system is system]
        for system in done.evaluation.systems
    }
    first, second = asked.values()
    assert first == second and len({seed for _, seed in first}) == 7, "each prompt has a seed of its own"
    assert all(pictures[cell.index].recipe == cell.recipe for cell in cells)
    assert [system.name for system in done.evaluation.systems] == ["12 steps", "1 step with Pocket Flash for SD 1.5"]


def test_it_says_which_is_better_and_how_sure_that_is(studio: Services, done: Standing) -> None:
    analysis = studio.evaluations.analysis(done)
    base, flash = analysis.systems
    assert len(analysis.places) == 7 and base.n == flash.n == 7 and base.seconds and flash.seconds
    assert base.means["right"].value > flash.means["right"].value, "one step draws hardly anything right"
    assert base.means["clip"].value > flash.means["clip"].value and not base.against
    assert flash.against["clip"].difference.value == pytest.approx(flash.means["clip"].value - base.means["clip"].value)
    assert base.seconds.median > flash.seconds.median
    assert base.skills["colour"].n == 7 and "relation" in base.skills and base.skills["relation"].n < 7
    assert "1 step with Pocket Flash for SD 1.5" in headline(analysis) and "on 7 prompts" in headline(analysis)
    assert analysis.judge.startswith("pocket-clip ")


def test_anchors_bracket_what_a_score_can_be(done: Standing) -> None:
    anchors = done.folder.anchors
    floor, ceiling = np.mean(list(anchors.floor.values())), np.mean(list(anchors.ceiling.values()))
    drawn = [
        result.cosine
        for cell in done.evaluation.cells
        if cell.system.name == "12 steps" and (result := done.results[cell.index]).cosine is not None
    ]
    assert len(anchors.floor) == len(anchors.ceiling) == 7
    assert floor < np.mean(drawn) - 0.1 and np.mean(drawn) <= ceiling + 0.02


def test_more_prompts_and_pictures_draw_only_what_is_new(studio: Services, done: Standing) -> None:
    count = studio.gallery.count()
    wider = evaluated(studio, num_prompts=8, num_images=2)
    assert studio.gallery.count() == count + 2 * (8 * 2 - 7), "7 of 16 pictures of each system were there"
    earlier = {record.id for record in studio.evaluations.pictures(done).values()}
    assert earlier < {record.id for record in studio.evaluations.pictures(wider).values()}
    assert [each.id for each in studio.evaluations.of()][:2] == [wider.id, done.id]


def test_one_that_was_stopped_goes_on_where_it_was(studio: Services) -> None:
    begun = studio.evaluations.submit(parse_evaluation({**TWO, "seed": 77}))
    assert begun.job is not None
    while len(studio.evaluations.pictures(begun)) < 2:
        pass
    begun.job.cancel()
    assert isinstance(begun.job.wait(timeout=PATIENCE_S), Cancelled)
    stopped = studio.evaluations.standing(begun.id)
    kept = studio.evaluations.pictures(stopped)
    assert 2 <= len(kept) < 14 and not stopped.is_running
    again = studio.evaluations.submit_resolved(stopped.evaluation)
    assert again.job is not None and isinstance(again.job.wait(timeout=PATIENCE_S), Finished)
    pictures = studio.evaluations.pictures(again)
    assert len(pictures) == 14 and all(pictures[index].id == record.id for index, record in kept.items())


def test_the_same_pictures_score_the_same_again(studio: Services, done: Standing) -> None:
    again = evaluated(studio)
    assert again.id != done.id
    for index, result in done.results.items():
        assert again.results[index].image_id == result.image_id
        assert again.results[index].cosine == pytest.approx(result.cosine, abs=1e-5)
        assert again.results[index].right == result.right and again.results[index].skills == result.skills


def test_with_an_adapter_goes_the_same_without_it(studio: Services) -> None:
    studio.settings.adapters_dir.mkdir(exist_ok=True)
    adapter_file(studio.settings.adapters_dir / "mine.safetensors")
    mine = {"adapters": [{"adapter": "mine", "lora_scale": 0.5}], "trigger": "sks", "num_inference_steps": 4}
    alone = resolved(studio, systems=[mine])
    assert [system.name for system in alone.systems] == ["no adapter", "mine × 0.5"]
    assert alone.baseline == "no adapter" and alone.others == (alone.systems[1],)
    with_it = next(cell for cell in alone.cells if cell.system.adapters)
    assert with_it.recipe.prompt == f"sks {with_it.text} <lora:mine:0.5>", "what is judged is what was to be shown"
    same = resolved(studio, systems=[{"num_inference_steps": 4}, mine])
    assert [len(system.adapters) for system in same.systems] == [0, 1]
    assert len(resolved(studio, systems=[mine], has_control=False).systems) == 1
    studio.evaluations.submit_resolved(alone).job.cancel()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"systems": [{}, {}]}, "Two systems are the same"),
        ({"systems": [{"name": "a"}, {"name": "a", "num_inference_steps": 3}]}, "Two systems are called 'a'"),
        ({"baseline": "nobody"}, "no system called 'nobody'"),
        ({"prompt_set": "nothing"}, "no set of prompts called 'nothing'"),
        ({"prompt_set": "parti", "num_prompts": 200}, "has 128 prompts, not 200"),
        ({"prompts": [" <lora:x:1> "]}, "no prompt"),
        ({"num_prompts": 1000, "num_images": 64}, f"at most {MAX_PICTURES:,}"),
        ({"systems": [{"num_inference_steps": 0}]}, "System 1: Steps is 0"),
        ({"systems": [{"steps": 4}]}, "no setting called 'steps'"),
        ({"systems": [{"adapters": [{"adapter": "x", "lora_scale": 9}]}]}, "system 1 has as its adapters"),
        ({"systems": []}, "no system"),
        ({"judge": "../x"}, "no judge called '../x'"),
        ({"systems": [{"checkpoint": "nothing"}]}, "nothing"),
    ],
    ids=str,
)
def test_what_cannot_be_is_said(studio: Services, values: dict[str, object], said: str) -> None:
    with pytest.raises((InvalidRequest, NotFound), match=said):
        resolved(studio, **values)


def test_an_adapter_that_is_not_there_is_refused_before_anything_is_drawn(studio: Services) -> None:
    with pytest.raises(InvalidRequest, match="gone"):
        studio.evaluations.submit(parse_evaluation({**TWO, "systems": [{"adapters": [{"adapter": "gone"}]}]}))


def test_another_person_sees_nothing_of_it(studio: Services, done: Standing) -> None:
    with pytest.raises(NotFound):
        studio.evaluations.standing(done.id, "somebody")
    assert studio.evaluations.of("somebody") == [] and studio.evaluations.standing(done.id, "local").id == done.id


def test_only_prompts_that_all_have_drawn_count(studio: Services) -> None:
    evaluation = resolved(studio, num_prompts=20)
    first, second = (system.name for system in evaluation.systems)
    results = told(evaluation, {first: [1.0] * 20, second: [0.0] * 20})
    half = {
        index: result
        for index, result in results.items()
        if evaluation.cells[index].place < 10 or evaluation.cells[index].system.name == first
    }
    analysis = analyse(evaluation, half)
    assert analysis.places == tuple(range(10)) and [each.n for each in analysis.systems] == [10, 10]
    assert analyse(evaluation, {}).systems == () and headline(analyse(evaluation, {})) == ""


def test_verdicts_follow_the_checker_and_disagreement_is_said(studio: Services) -> None:
    evaluation = resolved(studio, num_prompts=60)
    first, second = (system.name for system in evaluation.systems)
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.01, 60)
    cosines = {first: list(0.3 + noise), second: list(0.4 + noise + rng.normal(0, 0.01, 60))}
    analysis = analyse(evaluation, told(evaluation, {first: [0.95] * 60, second: [0.3] * 60}, cosines))
    paired = analysis.systems[1].against
    assert paired["right"].verdict == "worse" and paired["clip"].verdict == "better"
    assert paired["clip"].difference.value == pytest.approx(10, abs=0.5), "in points of cosine × 100"
    assert "is worse than" in headline(analysis) and "p < 0.001" in headline(analysis)
    assert "disagree on" in disagreement(analysis)


def test_no_difference_seen_in_few_prompts_is_not_no_difference(studio: Services) -> None:
    """All right by both: 34 prompts cannot rule out a loss of two points; 300 can."""
    for count, verdict in ((34, "undecided"), (300, "not worse")):
        evaluation = resolved(studio, num_prompts=count)
        first, second = (system.name for system in evaluation.systems)
        analysis = analyse(evaluation, told(evaluation, {first: [1.0] * count, second: [1.0] * count}))
        assert analysis.systems[1].against["right"].verdict == verdict
        assert analysis.systems[1].means["right"].low is not None and analysis.systems[1].means["right"].low < 100


def test_of_five_prompts_nothing_is_ranked(studio: Services) -> None:
    evaluation = resolved(studio, num_prompts=5)
    first, second = (system.name for system in evaluation.systems)
    analysis = analyse(evaluation, told(evaluation, {first: [1.0] * 5, second: [0.0] * 5}))
    assert analysis.systems[1].against["right"].verdict == "too few prompts" and "too few" in headline(analysis)


def test_sets_of_prompts_hold_every_kind_from_the_beginning(tmp_path: object) -> None:
    for each in PROMPT_SETS.values():
        whole = each.take(each.size)
        assert len({prompt.text for prompt in whole}) == each.size and each.source
        assert whole[:40] == each.take(40), "more prompts leave the first ones as they are"
        groups = {prompt.group for prompt in whole}
        assert {prompt.group for prompt in whole[: 2 * len(groups)]} == groups
    assert all(prompts <= PROMPT_SETS["parti"].size or name == "thorough" for name, (prompts, _) in PRESETS.items())
