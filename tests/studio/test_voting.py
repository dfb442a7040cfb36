"""Blind votes on an evaluation: which pairs come, which votes are taken, what they come to."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from studio.bradley_terry import FEWEST_VOTES
from studio.domain.cells import CellResult
from studio.domain.errors import InvalidRequest, StorageFailed
from studio.domain.evaluation import parse_evaluation
from studio.domain.votes import OUTCOMES, VoteLine
from studio.evaluation import Standing
from studio.gallery import NewImage
from studio.services import Services, open_services
from studio.settings import Settings
from studio.voting import VotingService, rater_id

Judge = Callable[[str, int], bool]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Services that draw nothing: their worker stands still."""
    with open_services(Settings(data_dir=tmp_path_factory.mktemp("data"), offline=True)) as opened:
        opened.runner.stop(timeout=10)
        yield opened


@pytest.fixture
def voting(studio: Services) -> VotingService:
    return VotingService(studio.evaluations, studio.gallery, random.Random(4))


def asked(
    studio: Services, systems: int = 2, prompts: int = 6, images: int = 1, judge: Judge | None = None
) -> Standing:
    """An evaluation as if it had been drawn: `judge` says of a system and a prompt whether the checker finds it right.
    Its systems are called a, b, c, …"""
    values = {
        "systems": [{"name": name, "num_inference_steps": 2 + place} for place, name in enumerate("abcde"[:systems])],
        "prompts": [f"a red star {place}" for place in range(prompts)],
        "num_images": images,
    }
    standing = studio.evaluations.submit_resolved(studio.evaluations.resolve(parse_evaluation(values)))
    for cell in standing.evaluation.cells:
        new = NewImage(
            job_id=standing.id, visitor="local", image_index=cell.index, recipe=cell.recipe,
            prompt_as_run=cell.text, negative_as_run="", environment={}, seconds={"total": 1.0}, peak_memory_mb=1.0,
        )  # fmt: skip
        record = studio.gallery.save(Image.new("RGB", (8, 8), (cell.index, 0, 0)), new)
        right = judge(cell.system.name, cell.place) if judge else None
        standing.folder.note(CellResult(index=cell.index, image_id=record.id, right=right))
    assert standing.job is not None
    standing.job.cancel()
    return studio.evaluations.standing(standing.id)


def votes_file(standing: Standing) -> Path:
    return standing.folder.path / "votes.jsonl"


def plant(standing: Standing, *lines: tuple[int, str, str, str, str]) -> None:
    """Votes as (place, first, second, outcome, rater)."""
    told = [
        VoteLine(place=place, image=0, first=first, second=second, outcome=outcome, rater=rater, at=1.0)  # type: ignore
        for place, first, second, outcome, rater in lines
    ]
    votes_file(standing).write_text("".join(line.model_dump_json() + "\n" for line in told))


def test_every_pair_comes_once_and_then_none(studio: Services, voting: VotingService) -> None:
    standing = asked(studio, systems=3, prompts=4, images=2)
    seen = set()
    for left in range(3 * 4 * 2, 0, -1):
        ballot = voting.ballot(standing, "ann")
        assert ballot.pair is not None and ballot.left == left and ballot.cast == 24 - left
        pair = ballot.pair
        cells = standing.evaluation.cells
        for index, name in ((pair.first_index, pair.first), (pair.second_index, pair.second)):
            cell = cells[index]
            assert (cell.system.name, cell.place, cell.image) == (name, pair.place, pair.image)
        seen.add((pair.systems, pair.place, pair.image))
        voting.vote(standing, pair.token, "skip" if left % 5 == 0 else "tie", "ann")
    assert len(seen) == 24 and voting.next_pair(standing, "ann") is None
    assert voting.next_pair(standing, "bob") is not None, "another person has not seen them"


def test_systems_are_compared_equally_often(studio: Services, voting: VotingService) -> None:
    standing = asked(studio, systems=4, prompts=6)
    shown: Counter[frozenset[str]] = Counter()
    for turn in range(30):
        rater = f"rater {turn % 4}"
        pair = voting.next_pair(standing, rater)
        assert pair is not None
        shown[pair.systems] += 1
        voting.vote(standing, pair.token, "first", rater)
        counts = [shown[frozenset(each)] for each in ("ab", "ac", "ad", "bc", "bd", "cd")]
        assert max(counts) - min(counts) <= 1


def test_sides_and_prompts_are_drawn_by_chance(studio: Services, voting: VotingService) -> None:
    standing = asked(studio, prompts=40)
    lefts, places = [], []
    for rater in ("ann", "bob"):
        while pair := voting.next_pair(standing, rater):
            lefts.append(pair.first)
            places.append(pair.place)
            voting.vote(standing, pair.token, "first", rater)
    assert 25 <= lefts.count("a") <= 55, "of 80, about half"
    assert places[:40] != places[40:] and places[:40] != sorted(places[:40])
    assert sorted(places[:40]) == sorted(places[40:]) == list(range(40))


def test_a_pair_stays_until_it_is_voted_on(studio: Services, voting: VotingService) -> None:
    standing = asked(studio, prompts=10)
    pair = voting.next_pair(standing, "ann")
    assert pair is not None and voting.next_pair(standing, "ann") == pair
    voting.vote(standing, pair.token, "skip", "ann")
    assert voting.next_pair(standing, "ann") != pair


def test_one_who_skips_two_systems_is_shown_others(studio: Services, voting: VotingService) -> None:
    standing = asked(studio, systems=3, prompts=10)
    shown: Counter[frozenset[str]] = Counter()
    for _ in range(9):
        pair = voting.next_pair(standing, "ann")
        assert pair is not None
        shown[pair.systems] += 1
        voting.vote(standing, pair.token, "skip" if pair.systems == {"a", "b"} else "tie", "ann")
    assert set(shown.values()) == {3}


def test_what_is_not_open_is_refused(studio: Services, voting: VotingService) -> None:
    standing, other = asked(studio), asked(studio, prompts=5)
    pair = voting.next_pair(standing, "ann")
    assert pair is not None
    for token, of, rater in (("guessed", standing, "ann"), (pair.token, standing, "bob"), (pair.token, other, "ann")):
        with pytest.raises(InvalidRequest, match="not open for your vote"):
            voting.vote(of, token, "first", rater)
    with pytest.raises(InvalidRequest, match="'best' is no answer"):
        voting.vote(standing, pair.token, "best", "ann")
    assert not votes_file(standing).exists()
    kept = voting.vote(standing, pair.token, "first", "ann")
    with pytest.raises(InvalidRequest, match="voted on these two pictures already"):
        voting.vote(standing, pair.token, "second", "ann")
    assert voting.lines(standing) == [kept] and kept.outcome == "first"
    later = VotingService(studio.evaluations, studio.gallery)
    with pytest.raises(InvalidRequest, match="not open"):
        later.vote(standing, pair.token, "first", "ann")


def test_a_line_that_a_kill_cut_short_costs_that_vote_only(studio: Services, voting: VotingService) -> None:
    standing = asked(studio)
    for _ in range(2):
        pair = voting.next_pair(standing, "ann")
        assert pair is not None
        voting.vote(standing, pair.token, "tie", "ann")
    whole = votes_file(standing).read_bytes()
    first = voting.lines(standing)[0]
    for cut in (1, 2, 30):
        votes_file(standing).write_bytes(whole[:-cut])
        kept = 2 if cut == 1 else 1
        after = VotingService(studio.evaluations, studio.gallery)
        assert len(after.lines(standing)) == kept and after.ballot(standing, "ann").left == 6 - kept
        pair = after.next_pair(standing, "ann")
        assert pair is not None
        line = after.vote(standing, pair.token, "both bad", "ann")
        assert len(after.lines(standing)) == kept + 1
        assert after.lines(standing)[0] == first and after.lines(standing)[-1] == line


def test_lines_that_are_no_votes_are_left_out(studio: Services, voting: VotingService) -> None:
    standing = asked(studio)
    plant(standing, (0, "a", "b", "first", "x"), (1, "a", "z", "first", "x"))
    with votes_file(standing).open("ab") as file:
        same = {"place": 0, "image": 0, "first": "a", "second": "a", "outcome": "first", "rater": "x", "at": 1.0}
        file.write(b"\xff\xfe\nnull\n\n" + json.dumps(same).encode() + b"\n")
    assert [line.place for line in voting.lines(standing)] == [0]
    assert voting.summary(standing).n == 1


def test_the_last_vote_is_taken_back_and_asked_again(studio: Services, voting: VotingService) -> None:
    standing = asked(studio, prompts=8)
    with pytest.raises(InvalidRequest, match="no vote of yours"):
        voting.undo(standing, "ann")
    first = voting.next_pair(standing, "ann")
    assert first is not None
    voting.vote(standing, first.token, "first", "ann")
    second = voting.next_pair(standing, "ann")
    assert second is not None
    voting.vote(standing, second.token, "skip", "ann")
    others = voting.next_pair(standing, "bob")
    assert others is not None
    voting.vote(standing, others.token, "tie", "bob")
    voting.undo(standing, "ann")
    assert [line.rater for line in voting.lines(standing)] == [rater_id("ann"), rater_id("bob")]
    again = voting.next_pair(standing, "ann")
    assert again is not None and again.token != second.token
    assert (again.place, again.first, again.second) == (second.place, second.first, second.second)
    assert (again.first_index, again.second_index) == (second.first_index, second.second_index)
    voting.vote(standing, again.token, "second", "ann")
    assert [line.outcome for line in voting.lines(standing)] == ["first", "tie", "second"]


def test_deleted_pictures_are_not_shown(studio: Services, voting: VotingService) -> None:
    standing = asked(studio, prompts=4)
    pictures = studio.evaluations.pictures(standing)
    by_place = {cell.place: pictures[cell.index] for cell in standing.evaluation.cells}
    pair = voting.next_pair(standing, "ann")
    assert pair is not None
    gone, *others = [pair.place, *(place for place in range(4) if place != pair.place)]
    studio.gallery.delete(by_place[gone].id)
    studio.gallery.path(by_place[others[0]]).unlink()  # the row of this one stays
    places = []
    while next_one := voting.next_pair(standing, "ann"):
        places.append(next_one.place)
        voting.vote(standing, next_one.token, "tie", "ann")
    assert sorted(places) == sorted(others[1:])
    assert voting.ballot(standing, "ann").left == 0


def test_what_is_not_drawn_yet_is_not_shown(studio: Services, voting: VotingService) -> None:
    standing = asked(studio, prompts=3)
    results = standing.folder.path / "results.jsonl"
    lines = results.read_text().splitlines()
    failed = CellResult(index=5, problem="too dark").model_dump_json()
    results.write_text("\n".join([*lines[:5], failed]) + "\n")
    ballot = voting.ballot(studio.evaluations.standing(standing.id), "ann")
    assert ballot.left == 2
    alone = asked(studio, systems=1)
    assert voting.ballot(alone, "ann").pair is None


def test_nobody_learns_who_voted_and_a_lost_folder_is_said(studio: Services, voting: VotingService) -> None:
    standing = asked(studio)
    pair = voting.next_pair(standing, "a visitor's id")
    assert pair is not None and not {"a", "b"} & set(pair.token.split("-"))
    voting.vote(standing, pair.token, "first", "a visitor's id")
    text = votes_file(standing).read_text()
    assert "visitor" not in text and rater_id("a visitor's id") in text and len(rater_id("x")) == 12
    votes_file(standing).unlink()
    for file in standing.folder.path.iterdir():
        file.unlink()
    standing.folder.path.rmdir()
    with pytest.raises(StorageFailed, match="missing"):
        voting.vote(standing, pair.token, "first", "a visitor's id")


def test_two_systems_have_a_win_rate_and_the_metric_beside(studio: Services, voting: VotingService) -> None:
    """People prefer b; the checker says the same of prompts 0 to 3, the opposite of 4 and 5, and of 6 nothing."""
    right = {"a": {4, 5, 6}, "b": {0, 1, 2, 3, 6}}
    standing = asked(studio, prompts=8, judge=lambda name, place: place in right[name])
    outcomes = ["second"] * 7 + ["skip"]
    plant(standing, *((place, "a", "b", outcome, "x") for place, outcome in enumerate(outcomes)))
    summary = voting.summary(standing)
    assert (summary.n, summary.skipped, summary.raters, summary.is_enough) == (7, 1, 1, False)
    assert summary.baseline == "a" and list(summary.against) == ["b"] and summary.strengths == ()
    rate = summary.against["b"]
    assert rate.value == 1.0 and rate.n == 7 and rate.low is not None and 0.5 < rate.low < 1.0
    assert summary.measure == "right" and summary.agreement is None
    (pair,) = summary.pairs
    assert (pair.first, pair.second, pair.same, pair.other, pair.equal) == ("a", "b", 4, 2, 1)
    assert pair.rate.value == 0.0 and pair.lead == pytest.approx(-200 / 7) and pair.is_same_way is True
    assert [(each.place, each.people, each.metric, each.n, each.lead) for each in summary.disagreements] == [
        (4, "b", "a", 1, 100.0),
        (5, "b", "a", 1, 100.0),
    ]
    assert summary.disagreements[0].text == "a red star 4"


def test_several_systems_are_ranked_by_votes_of_several(studio: Services, voting: VotingService) -> None:
    standing = asked(studio, systems=3, prompts=8, judge=lambda name, _: name == "a")
    for rater in ("ann", "bob"):
        while pair := voting.next_pair(standing, rater):
            voting.vote(standing, pair.token, "first" if pair.first > pair.second else "second", rater)
    summary = voting.summary(standing)
    assert summary.n == 48 >= FEWEST_VOTES and summary.is_enough and summary.raters == 2
    assert [each.system for each in summary.strengths] == ["c", "b", "a"]
    assert summary.agreement is not None and summary.agreement.value == 1.0 and summary.agreement.n == 24
    assert list(summary.against) == ["b", "c"] and summary.against["c"].value == 1.0
    ways = {(pair.first, pair.second): (pair.same, pair.other, pair.equal, pair.is_same_way) for pair in summary.pairs}
    assert ways == {("a", "b"): (0, 16, 0, False), ("a", "c"): (0, 16, 0, False), ("b", "c"): (0, 0, 16, None)}
    assert len(summary.disagreements) == 12 and {each.metric for each in summary.disagreements} == {"a"}


def test_the_surest_disagreement_goes_first(studio: Services, voting: VotingService) -> None:
    standing = asked(studio, prompts=3, judge=lambda name, place: name == "a" and place < 2)
    plant(
        standing,
        (0, "a", "b", "second", "x"),
        (0, "a", "b", "tie", "y"),
        (1, "b", "a", "first", "x"),
        (1, "a", "b", "second", "y"),
        (2, "a", "b", "second", "x"),
    )
    summary = voting.summary(standing)
    assert [(each.place, each.n) for each in summary.disagreements] == [(1, 2), (0, 2)]
    assert summary.agreement is not None and (summary.agreement.value, summary.agreement.n) == (0.5, 2)


def test_without_votes_or_a_judge_little_is_said(studio: Services, voting: VotingService) -> None:
    standing = asked(studio, systems=3)
    summary = voting.summary(standing)
    assert (summary.n, summary.against, summary.strengths, summary.pairs) == (0, {}, (), ())
    plant(standing, (0, "a", "b", "both bad", "x"))
    summary = voting.summary(standing)
    assert summary.measure is None and summary.disagreements == () and summary.against["b"].value == 0.5
    assert summary.pairs[0].lead is None and summary.pairs[0].is_same_way is None
    assert set(OUTCOMES) == {"first", "second", "tie", "both bad", "skip"}
