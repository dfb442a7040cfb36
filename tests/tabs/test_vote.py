"""The panel for blind votes: what a page is told before a vote, after it, and once results are asked for."""

import base64
import io
import json
import random
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from studio.domain.cells import CellResult
from studio.domain.evaluation import parse_evaluation
from studio.evaluation import Standing
from studio.gallery import NewImage
from studio.services import Services
from studio.settings import Settings
from studio.voting import VotingService
from studio.web.access import new_token, visitor_of
from tabs import vote_views
from tabs.visitor import build_browser_state
from tabs.vote import VotePanel, build_vote, rater_of
from tabs.widgets import asset

NAMES = ("careful <b>", "hasty & quick", "third one")
TOKEN = new_token()


@pytest.fixture
def panel(services: Services) -> VotePanel:
    return panel_over(services, services.settings)


def panel_over(services: Services, settings: Settings) -> VotePanel:
    parts = SimpleNamespace(
        settings=settings,
        evaluations=services.evaluations,
        voting=VotingService(services.evaluations, services.gallery, random.Random(1)),
    )
    with gr.Blocks():
        return build_vote(parts, build_browser_state("visitor"), gr.State(None))


def drawn(services: Services, systems: int = 2, prompts: int = 5, is_over: bool = True) -> Standing:
    """An evaluation of the bearer of `TOKEN`, as if it had been drawn: the first system's pictures are red and right,
    the next one's green, then blue."""
    values = {
        "systems": [{"name": name, "num_inference_steps": 3 + place} for place, name in enumerate(NAMES[:systems])],
        "prompts": [f"a <i>star</i> & {place}" for place in range(prompts)],
        "num_images": 1,
    }
    evaluation = services.evaluations.resolve(parse_evaluation(values))
    standing = services.evaluations.submit_resolved(evaluation, visitor_of(TOKEN))
    colours = dict(zip(NAMES, ((255, 0, 0), (0, 255, 0), (0, 0, 255)), strict=True))
    for cell in evaluation.cells:
        new = NewImage(
            job_id=standing.id, visitor=visitor_of(TOKEN), image_index=cell.index, recipe=cell.recipe,
            prompt_as_run=cell.text, negative_as_run="", environment={}, seconds={"total": 1.0}, peak_memory_mb=1.0,
        )  # fmt: skip
        record = services.gallery.save(Image.new("RGB", (16, 16), colours[cell.system.name]), new)
        right = cell.system.name == NAMES[0]
        standing.folder.note(CellResult(index=cell.index, image_id=record.id, right=right))
    if is_over:
        standing.job.cancel()
    return services.evaluations.standing(standing.id)


def told(panel: VotePanel, updates: dict[Any, Any]) -> dict[str, Any]:
    return json.loads(updates[panel.stage])


def answer(panel: VotePanel, standing: Standing, token: str, outcome: str, who: str = TOKEN) -> dict[str, Any]:
    return told(panel, panel.on_vote(standing.id, who, SimpleNamespace(token=token, outcome=outcome)))  # type: ignore


def pixel(source: str) -> tuple[int, ...]:
    head, _, data = source.partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert not image.getexif() and "comment" not in image.info, "what a file says of itself would name the system"
        return image.getpixel((8, 8))  # type: ignore[return-value]


def system_of(source: str) -> str:
    return NAMES[max(range(3), key=lambda channel: pixel(source)[channel])]


def test_it_opens_with_a_pair_and_without_results(panel: VotePanel, services: Services) -> None:
    standing = drawn(services)
    shown = panel.on_open(standing.id, TOKEN)
    first = told(panel, shown)
    assert shown[panel.frame].visible is True and set(shown) == set(panel.outputs)
    assert first["prompt"].startswith("a <i>star</i> & "), "the widget writes it as text"
    assert first["count"] == "5 pairs left" and first["can_undo"] is False and first["results"] is None
    assert {system_of(source) for source in first["pictures"]} == set(NAMES[:2])
    assert panel.on_open("gone", TOKEN)[panel.frame].visible is False
    assert panel.on_open(None, TOKEN)[panel.frame].visible is False


def test_nothing_that_the_page_gets_tells_the_systems_apart(panel: VotePanel, services: Services) -> None:
    standing = drawn(services, systems=3, prompts=4)
    records = services.evaluations.pictures(standing)
    secrets = [*NAMES, *(record.id for record in records.values()), *(record.id[:16] for record in records.values())]
    value = told(panel, panel.on_open(standing.id, TOKEN))
    seen = []
    while value["token"]:
        text = json.dumps({**value, "pictures": []}, ensure_ascii=False)
        assert not [each for each in secrets if each in text or each in "".join(value["pictures"])]
        assert set(value) == {
            "turn", "prompt", "pictures", "token", "count", "can_undo", "empty", "problem", "results",
        }  # fmt: skip
        assert len(value["token"]) == 22 and value["results"] is None
        seen.append((value["token"], *map(system_of, value["pictures"])))
        value = answer(panel, standing, value["token"], "first")
    assert len({token for token, *_ in seen}) == 12
    assert len({left for _, left, _ in seen}) == 3, "each is left at times"
    assert panel.stage.value == vote_views.EMPTY


def test_a_vote_is_for_the_side_that_was_seen_and_brings_the_next_pair(panel: VotePanel, services: Services) -> None:
    standing = drawn(services)
    value = told(panel, panel.on_open(standing.id, TOKEN))
    for left in (4, 3, 2, 1, 0):
        is_left = system_of(value["pictures"][0]) == NAMES[1]
        value = answer(panel, standing, value["token"], "first" if is_left else "second")
        assert value["can_undo"] is True and not value["problem"]
        assert value["count"] == {0: "", 1: "One pair left"}.get(left, f"{left} pairs left")
    assert value["token"] == "" and value["pictures"] == [] and value["empty"] == "That was all. Thank you."
    summary = panel.services.voting.summary(standing)
    assert summary.against[NAMES[1]].value == 1.0 and summary.raters == 1


def test_what_is_refused_is_said_and_the_page_goes_on(panel: VotePanel, services: Services) -> None:
    standing = drawn(services)
    pair = told(panel, panel.on_open(standing.id, TOKEN))
    problem = answer(panel, standing, "guessed", "first")
    assert problem["problem"].startswith("These two pictures are not open") and problem["token"] == pair["token"]
    assert problem["turn"] != pair["turn"], "the page hears of it"
    answer(panel, standing, pair["token"], "tie")
    again = answer(panel, standing, pair["token"], "tie")
    assert "already" in again["problem"] and again["token"] not in ("", pair["token"])
    assert "no answer" in answer(panel, standing, again["token"], "best")["problem"]
    stolen = answer(panel, standing, again["token"], "first", who=new_token())
    assert "not open" in stolen["problem"] and stolen["token"] != again["token"]


def test_the_last_vote_is_taken_back(panel: VotePanel, services: Services) -> None:
    standing = drawn(services)
    assert "no vote of yours" in told(panel, panel.on_undo(standing.id, TOKEN))["problem"]
    first = told(panel, panel.on_open(standing.id, TOKEN))
    answer(panel, standing, first["token"], "skip")
    back = told(panel, panel.on_undo(standing.id, TOKEN))
    assert back["pictures"] == first["pictures"] and back["prompt"] == first["prompt"] and not back["can_undo"]
    assert back["count"] == "5 pairs left"


def test_results_show_when_asked_for_and_hide_again(panel: VotePanel, services: Services) -> None:
    standing = drawn(services)
    before = told(panel, panel.on_open(standing.id, TOKEN))
    asked = told(panel, panel.on_results(standing.id, TOKEN))
    assert asked["results"] == {"lines": ["There are no votes yet."], "tables": []}
    assert asked["token"] == before["token"], "the pair stays"
    value = before
    for outcome in (NAMES[1], NAMES[1], NAMES[0], "skip"):
        sides = [system_of(source) for source in value["pictures"]]
        said = outcome if outcome == "skip" else ("first", "second")[sides.index(outcome)]
        value = answer(panel, standing, value["token"], said)
        assert value["results"] is None
    results = told(panel, panel.on_results(standing.id, TOKEN))["results"]
    assert results["lines"] == [
        "3 votes by one person, 1 skipped.",
        "Too few votes to rank: 30 at least. What follows may be luck.",
        "hasty & quick is preferred to careful <b> in 67 % [21–94 %] of them; a tie counts half.",
    ]
    metric, differ = results["tables"]
    assert metric["title"] == "Votes beside “drawn right”"
    assert metric["rows"] == [["careful <b> – hasty & quick", "1", "2", "0", "the opposite"]]
    assert [row[1:] for row in differ["rows"]] == [["hasty & quick", "careful <b> (+100.0)", "1"]] * 2
    assert value["results"] is None


def test_of_three_systems_strengths_show_once_there_are_enough_votes(panel: VotePanel, services: Services) -> None:
    standing = drawn(services, systems=3, prompts=4)
    for turn, who in enumerate([TOKEN, new_token(), new_token()]):
        value = told(panel, panel.on_open(standing.id, who))
        while value["token"]:
            sides = [NAMES.index(system_of(source)) for source in value["pictures"]]
            value = answer(panel, standing, value["token"], "first" if sides[0] > sides[1] else "second", who)
        results = told(panel, panel.on_results(standing.id, who))["results"]
        ranking = results["tables"][0]
        names = [row[0] for row in ranking["rows"]]
        if turn < 2:
            assert "Too few votes to rank" in results["lines"][1] and "Strength" not in ranking["head"]
            assert names == sorted(NAMES)
    assert results["lines"][0] == "36 votes by 3 people."
    assert results["lines"][1].startswith("Two people gave the same answer in 100 % ")
    assert ranking["head"] == ["System", "Strength", "Preferred to careful <b>", "Votes"]
    assert names == list(reversed(NAMES))
    assert ranking["rows"][0][2].startswith("100 % [") and ranking["rows"][2][2] == "–"
    assert ranking["rows"][0][1].count("[") == 1 and ranking["rows"][0][3] == "24"


def test_only_a_local_page_shows_what_another_person_evaluates(panel: VotePanel, services: Services) -> None:
    standing = drawn(services)
    stranger = new_token()
    assert panel.on_open(standing.id, stranger)[panel.frame].visible is True
    shared = panel_over(services, services.settings.model_copy(update={"share": True}))
    assert shared.on_open(standing.id, stranger)[shared.frame].visible is False
    assert shared.on_open(standing.id, TOKEN)[shared.frame].visible is True
    assert rater_of(TOKEN) != rater_of(stranger) and rater_of(None) == "local"


def test_it_says_why_there_is_nothing_to_vote_on(panel: VotePanel, services: Services) -> None:
    def why(standing: Standing) -> str:
        return told(panel, panel.on_open(standing.id, TOKEN))["empty"]

    assert "needs two ways of drawing" in why(drawn(services, systems=1))
    running = drawn(services, is_over=False)
    for record in services.evaluations.pictures(running).values():
        services.gallery.delete(record.id)
    assert why(running).startswith("Nothing to vote on until more is drawn")
    running.job.cancel()
    assert why(running).startswith("There are no two pictures")
    assert panel.closed()[panel.stage] == vote_views.EMPTY


def test_pictures_are_sent_as_large_as_they_can_be_judged() -> None:
    source = vote_views.picture(Image.new("RGB", (2048, 1024), "red"))
    with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as image:
        assert image.size == (1024, 512)


def test_the_widget_writes_text_only() -> None:
    assert "innerHTML" not in asset("vote.js") and "${" not in asset("vote.html") and "{{" not in asset("vote.html")
