"""Two systems on the same prompts: what is said of them holds as often as it claims to, shown by simulation."""

import numpy as np
import pytest
from scipy.stats import permutation_test
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from studio.paired import by_prompt, compare, compare_all, holm, prompts_needed, sign_flip, win_rate
from studio.statistics import mean

ROUNDS = 2000


@pytest.mark.parametrize("count", [8, 30])
def test_equal_systems_are_told_apart_in_one_of_twenty(count: int) -> None:
    rng = np.random.default_rng(count)
    rejected = sum(sign_flip(list(rng.normal(0, 2, count))) < 0.05 for _ in range(ROUNDS)) / ROUNDS
    assert 0.035 <= rejected <= 0.065


@pytest.mark.parametrize("count", [8, 20, 40])
def test_intervals_hold_the_true_difference_in_nineteen_of_twenty(count: int) -> None:
    rng = np.random.default_rng(count)
    held = 0
    for _ in range(ROUNDS // 2):
        told = mean(list(rng.normal(0.5, 2, count)))
        assert told.low is not None and told.high is not None
        held += told.low <= 0.5 <= told.high
    assert 0.93 <= held / (ROUNDS // 2) <= 0.97


def test_pictures_of_one_prompt_are_not_so_many_prompts() -> None:
    rng = np.random.default_rng(3)
    naive = right = 0
    for _ in range(ROUNDS):
        prompts = rng.normal(0, 1, (25, 1)) + rng.normal(0, 1.5, (25, 4))  # no system is better: prompts differ
        naive += sign_flip(list(prompts.ravel())) < 0.05
        right += sign_flip(by_prompt(prompts.tolist())) < 0.05
    assert naive / ROUNDS > 0.1
    assert 0.035 <= right / ROUNDS <= 0.065


@pytest.mark.parametrize("count", [5, 9, 12])
def test_the_exact_test_is_scipys(count: int) -> None:
    observed = np.random.default_rng(count).normal(0.4, 1, count)
    told = permutation_test((observed,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(list(observed)) == pytest.approx(told.pvalue, abs=1e-12)


def test_a_random_test_is_nearly_the_exact_one_and_the_same_each_time() -> None:
    observed = list(np.random.default_rng(1).normal(0.5, 1, 14))
    told = permutation_test((observed,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(observed) == pytest.approx(told.pvalue, abs=0.01)
    assert sign_flip(observed) == sign_flip(observed)


def test_several_comparisons_are_corrected_as_statsmodels_does() -> None:
    rng = np.random.default_rng(2)
    for count in (1, 2, 7):
        p_values = list(rng.uniform(0, 0.1, count))
        assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))


@pytest.mark.parametrize(("difference", "spread"), [(0.25, 1.5), (0.5, 2.5), (1.0, 2.0), (2.0, 3.0)])
def test_the_advice_on_prompts_is_that_of_the_t_test(difference: float, spread: float) -> None:
    told = prompts_needed(difference, spread)
    assert abs(told - np.ceil(TTestPower().solve_power(difference / spread, power=0.8, alpha=0.05))) <= 1


def test_that_many_prompts_do_see_it() -> None:
    rng = np.random.default_rng(5)
    count = prompts_needed(1.0, 2.0)
    seen = sum(sign_flip(list(rng.normal(1.0, 2.0, count))) < 0.05 for _ in range(ROUNDS)) / ROUNDS
    assert 0.76 <= seen <= 0.86


def test_verdicts_say_what_the_numbers_allow() -> None:
    rng = np.random.default_rng(6)
    noise = rng.normal(0, 1, 40)
    noise -= noise.mean()
    assert compare(list(noise + 1)).verdict == "better"
    assert compare(list(noise - 1)).verdict == "worse"
    assert compare(list(noise)).verdict == "undecided"
    assert compare(list(noise), margin=1.0).verdict == "not worse"
    assert compare(list(noise - 0.1), margin=0.2).verdict == "undecided"
    assert compare([1.0, 1.1, 1.2, 0.9, 1.0]).verdict == "too few prompts"
    assert compare([0.0] * 10).verdict == "undecided" and compare([0.0] * 10, margin=0.1).verdict == "not worse"


def test_what_is_better_alone_need_not_be_among_many() -> None:
    rng = np.random.default_rng(8)
    differences = rng.normal(0, 1, 30)
    differences += 0.45 - differences.mean()
    alone = compare(list(differences))
    assert alone.verdict == "better" and alone.p_value > 0.01
    others = [rng.normal(0, 1, 30) for _ in range(6)]
    first, *_ = compare_all([list(differences), *(list(each - each.mean()) for each in others)])
    assert first.adjusted > 0.05 > first.p_value and first.verdict == "undecided"


def test_a_tie_is_half_a_win() -> None:
    told = win_rate([1.0, 0.0, -1.0, 2.0])
    assert told.value == 0.625 and told.n == 4
    assert told.low is not None and told.high is not None and told.low < 0.625 < told.high
    assert by_prompt([[1.0, 3.0], [5.0]]) == [2.0, 5.0]


def test_no_difference_needs_no_number_of_prompts() -> None:
    with pytest.raises(ValueError, match="a difference other than 0"):
        prompts_needed(0.0)
