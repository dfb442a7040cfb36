"""Votes between systems: what is said of them holds as often as it claims to, shown by simulation."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.optimize import brentq
from scipy.special import expit

from studio import bradley_terry
from studio.bradley_terry import (
    ELO_CENTRE,
    ELO_UNIT,
    FEWEST_VOTES,
    Outcome,
    Strength,
    Vote,
    agreement,
    is_enough,
    strengths,
    win_rate,
)
from studio.statistics import Estimate, share

NAMES = "abcdef"
MIRRORED: dict[Outcome, Outcome] = {"first": "second", "second": "first", "tie": "tie", "both bad": "both bad"}


def vote(outcome: Outcome, prompt: object = 0, rater: object = 0, pair: str = "ab") -> Vote:
    return Vote(first=pair[0], second=pair[1], outcome=outcome, prompt=str(prompt), rater=str(rater))


def tally(wins: int, losses: int, pair: str = "ab") -> list[Vote]:
    """Votes of one rater, each on a prompt of its own."""
    won = [vote("first", f"{pair} {number}", pair=pair) for number in range(wins)]
    return [*won, *(vote("second", f"{pair} {wins + number}", pair=pair) for number in range(losses))]


def simulated(
    rng: np.random.Generator, truth: Sequence[float], raters: int, prompts: int, taste: float = 0, subject: float = 0
) -> list[Vote]:
    """One vote by each rater on each prompt, between two systems at random; raters have a `taste` of their own, and
    prompts a `subject`, of so great a standard deviation for each system."""
    tastes, subjects = rng.normal(0, taste, (raters, len(truth))), rng.normal(0, subject, (prompts, len(truth)))
    likes = np.asarray(truth) + tastes[:, None] + subjects
    shown = np.argsort(rng.random(likes.shape))[..., :2]
    one, other = np.moveaxis(np.take_along_axis(likes, shown, axis=2), 2, 0)
    won = rng.random(one.shape) < expit(one - other)
    return [
        vote("first" if won[place] else "second", place[1], place[0], "".join(NAMES[at] for at in shown[place]))
        for place in np.ndindex(raters, prompts)
    ]


def independent(votes: Sequence[Vote]) -> list[Vote]:
    """The same votes as if each were on a prompt of its own, all by one rater."""
    return [replace(each, prompt=str(number), rater="one") for number, each in enumerate(votes)]


def holds(estimate: Estimate, truth: float) -> bool:
    assert estimate.low is not None and estimate.high is not None
    return estimate.low <= truth <= estimate.high


def width(estimate: Estimate) -> float:
    assert estimate.low is not None and estimate.high is not None
    return estimate.high - estimate.low


def by_name(found: Sequence[Strength]) -> dict[str, Estimate]:
    return {each.system: each.elo for each in found}


def test_true_strengths_lie_in_the_intervals() -> None:
    rng = np.random.default_rng(1)
    truth = np.array([1.0, 0.6, 0.2, -0.2, -0.6, -1.0])
    held = []
    for _ in range(20):
        told = by_name(strengths(simulated(rng, truth, raters=1, prompts=400)))
        held += [holds(told[name], ELO_CENTRE + ELO_UNIT * at) for name, at in zip(NAMES, truth, strict=True)]
        assert max(told, key=lambda name: told[name].value) in "ab" and told["a"].value - told["f"].value > 200
        assert all(40 < width(elo) < 160 for elo in told.values())
    assert sum(held) / len(held) >= 0.9


@pytest.mark.parametrize(("raters", "prompts", "taste", "subject"), [(1, 80, 0, 1), (12, 30, 0.8, 0.6)])
def test_equal_systems_win_half_within_the_interval_in_nineteen_of_twenty(
    raters: int, prompts: int, taste: float, subject: float
) -> None:
    rng = np.random.default_rng(raters)
    rounds = 300
    votes = (simulated(rng, (0, 0), raters, prompts, taste, subject) for _ in range(rounds))
    held = sum(holds(win_rate(each, "a", "b"), 0.5) for each in votes)
    # of 300 rounds, 0.95 has a standard error of 0.0126; these bounds are three of them away
    assert 0.912 <= held / rounds <= 0.988


def test_equal_systems_do_not_differ_in_strength_in_nineteen_of_twenty() -> None:
    rng = np.random.default_rng(7)
    rounds, held = 150, 0
    for _ in range(rounds):
        several = [replace(each, rater="one") for each in simulated(rng, (0, 0), 3, 40, subject=1)]
        one, other = strengths(several)
        # of two, the one is as far above the mean as the other below: the difference is twice that
        assert one.elo.value - ELO_CENTRE == pytest.approx(ELO_CENTRE - other.elo.value)
        held += holds(one.elo, ELO_CENTRE)
    # of 150 rounds, 0.95 has a standard error of 0.018; the lower bound is three of them away
    assert 0.897 <= held / rounds < 1


def test_where_raters_differ_their_votes_are_not_so_many_votes() -> None:
    rng = np.random.default_rng(3)
    naive = right = 0
    rounds = 100
    for _ in range(rounds):
        votes = simulated(rng, (0, 0), raters=10, prompts=30, taste=1)
        naive += holds(win_rate(independent(votes), "a", "b"), 0.5)
        right += holds(win_rate(votes, "a", "b"), 0.5)
    assert naive / rounds < 0.6
    assert right / rounds > 0.88


@pytest.mark.parametrize(("raters", "prompts", "taste", "subject"), [(8, 40, 1, 0), (40, 8, 0, 1)])
def test_strengths_are_less_sure_where_raters_or_prompts_differ(
    raters: int, prompts: int, taste: float, subject: float
) -> None:
    votes = simulated(np.random.default_rng(4), (0.5, 0, -0.5), raters, prompts, taste, subject)
    told, naive = by_name(strengths(votes)), by_name(strengths(independent(votes)))
    for name, elo in told.items():
        assert elo.value == pytest.approx(naive[name].value)
        assert width(elo) > 1.4 * width(naive[name])


def test_only_what_is_there_more_than_once_is_drawn_anew() -> None:
    votes = simulated(np.random.default_rng(5), (0, 0), raters=1, prompts=50)
    across = [replace(each, prompt=each.rater, rater=each.prompt) for each in votes]
    assert strengths(across) == strengths(votes)
    assert win_rate(across, "a", "b") == win_rate(votes, "a", "b")


def test_no_interval_is_narrower_than_that_of_independent_votes() -> None:
    # each prompt has one vote either way: whichever are drawn, half are won
    votes = [each for prompt in range(40) for each in (vote("first", prompt), vote("second", prompt))]
    for some in (votes, votes[:-1]):
        assert width(win_rate(some, "a", "b")) >= width(win_rate(independent(some), "a", "b"))
    one, _ = strengths(votes)
    error = 1 / math.sqrt(80 / 4)
    assert width(one.elo) / 2 == pytest.approx(1.96 * ELO_UNIT * error / 2, rel=0.02)


def test_strengths_are_those_of_a_logistic_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bradley_terry, "_PRIOR_VARIANCE", 1e9)
    votes = simulated(np.random.default_rng(6), (0.8, 0.1, 0, -0.9), raters=1, prompts=300)
    design = np.array([[(name == each.first) * 1.0 - (name == each.second) for name in "bcd"] for each in votes])
    fitted = sm.GLM([each.outcome == "first" for each in votes], design, family=sm.families.Binomial()).fit()
    theirs = np.array([0, *np.asarray(fitted.params)])
    expected = ELO_CENTRE + ELO_UNIT * (theirs - theirs.mean())
    told = by_name(strengths(votes))
    assert [told[name].value for name in "abcd"] == pytest.approx(list(expected), abs=1e-3)


def test_of_two_the_difference_is_the_log_odds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bradley_terry, "_PRIOR_VARIANCE", 1e9)
    ties = [vote("tie", "t"), vote("both bad", "u")]
    one, other = strengths([*tally(29, 9), *ties])
    assert (one.system, one.elo.n) == ("a", 40)
    assert one.elo.value - other.elo.value == pytest.approx(400 * math.log10(30 / 10), abs=1e-3)


def test_each_resample_is_fitted_as_if_alone() -> None:
    wins = np.random.default_rng(8).poisson(6, (50, 4, 4)).astype(float) * (1 - np.eye(4))
    alone = np.concatenate([bradley_terry._fit(table[None]) for table in wins])
    assert np.abs(bradley_terry._fit(wins) - alone).max() * ELO_UNIT < 0.01


def test_who_wins_every_vote_is_strong_but_not_without_bound() -> None:
    one, other = strengths(tally(40, 0))
    gap = (one.elo.value - other.elo.value) / ELO_UNIT
    # where the pull of 40 wins is that of the prior, of which a difference of two has the variance π² / 3
    assert gap == pytest.approx(brentq(lambda at: 40 * expit(-at) - at / (math.pi**2 / 3), 0, 10), abs=1e-4)
    assert 35 < math.exp(gap) < 37
    assert one.elo.low is not None and one.elo.low > ELO_CENTRE + 50
    assert 200 < width(one.elo) < 1000


def test_a_win_rate_has_wilsons_interval_and_ties_are_half() -> None:
    told, expected = win_rate(tally(21, 9), "a", "b"), share(21, 30)
    assert (told.value, told.n) == (expected.value, 30)
    assert (told.low, told.high) == pytest.approx((expected.low, expected.high))
    halves = win_rate([*tally(20, 8), vote("tie", "t"), vote("both bad", "u")], "a", "b")
    assert halves == told


def test_a_win_rate_is_between_two_systems_only() -> None:
    votes = [*tally(3, 1), *tally(9, 0, "ac"), *tally(0, 4, "ba")]
    told, turned = win_rate(votes, "a", "b"), win_rate(votes, "b", "a")
    assert (told.value, told.n) == (7 / 8, 8)
    assert told.low is not None and told.high is not None
    assert (turned.value, turned.low, turned.high) == pytest.approx((1 - told.value, 1 - told.high, 1 - told.low))
    with pytest.raises(ValueError, match="no vote between b and c"):
        win_rate(votes, "b", "c")


def test_where_all_agree_each_prompt_counts_once() -> None:
    told = win_rate([vote("first", prompt, rater) for prompt in range(12) for rater in range(3)], "a", "b")
    expected = share(12, 12)
    assert (told.value, told.n, told.high) == (1, 36, 1)
    assert told.low == pytest.approx(expected.low)


def test_nothing_depends_on_the_order_of_votes_or_sides() -> None:
    rng = np.random.default_rng(9)
    votes = simulated(rng, (0.5, 0, -0.5), raters=4, prompts=30)
    votes += [replace(votes[0], outcome="tie"), replace(votes[1], outcome="both bad")]
    mirrored = [replace(v, first=v.second, second=v.first, outcome=MIRRORED[v.outcome]) for v in votes]
    for others in (mirrored, [votes[place] for place in rng.permutation(len(votes))]):
        assert strengths(others) == strengths(votes)
        assert win_rate(others, "a", "b") == win_rate(votes, "a", "b")
        assert agreement(others) == agreement(votes)


def test_systems_are_sorted_by_what_is_sure() -> None:
    found = strengths([*tally(70, 30, "ac"), *tally(70, 30, "ad"), *tally(3, 0, "bc")])
    told = by_name(found)
    assert told["b"].value > told["a"].value
    assert [each.system for each in found] == ["a", "b", "c", "d"]


def test_only_the_systems_asked_for_are_compared() -> None:
    votes = [*tally(20, 10), *tally(0, 30, "ac")]
    found = strengths(votes, ["b", "a", "d"])
    told = by_name(found)
    assert found[-1] == Strength(system="d", elo=Estimate(value=pytest.approx(ELO_CENTRE), n=0))
    assert told["a"].n == told["b"].n == 30 and told["a"].value > told["b"].value
    assert by_name(strengths(votes))["a"].n == 60
    assert strengths([]) == []


def test_few_prompts_and_raters_tell_no_interval() -> None:
    few = [vote("first", prompt, rater) for prompt in range(2) for rater in range(2)]
    assert all(each.elo.low is None and each.elo.high is None for each in strengths(few))
    assert all(each.elo.low is not None for each in strengths([*few, vote("first", 2)]))


def test_below_thirty_votes_nothing_is_ranked() -> None:
    assert not is_enough(tally(FEWEST_VOTES - 1, 0)) and is_enough(tally(FEWEST_VOTES, 0))


def test_a_system_is_not_put_against_itself() -> None:
    with pytest.raises(ValueError, match="between two systems"):
        vote("tie", pair="aa")


def test_raters_agree_where_they_answer_the_same() -> None:
    votes = [
        *(vote("first", 0, 1), vote("second", 0, 2, "ba")),  # the same, shown the other way round
        *(vote("first", 1, 1), vote("second", 1, 2)),
        *(vote("tie", 2, 1), vote("both bad", 2, 2)),
        *(vote("tie", 3, 1), vote("tie", 3, 2), vote("first", 3, 3)),  # one of three pairs of raters agrees
        *(vote("first", 4, 1), vote("first", 4, 1)),  # no other rater
        *(vote("first", 5, 1), vote("first", 5, 2, "ac")),  # not the same systems
    ]
    told = agreement(votes)
    assert told is not None
    assert (told.value, told.n) == (pytest.approx((1 + 1 / 3) / 4), 4)
    assert holds(told, told.value) and 0 < width(told) < 1
    assert agreement(votes[-4:]) is None
