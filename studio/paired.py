"""Is one better than the other, by how much, and is that more than luck: two systems on the same prompts.

The unit is the prompt: of several pictures of one, what counts is their mean, for they are not independent of each
other. Everything here is about `differences`, one for each prompt: the one system's value less the other's.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Literal

import numpy as np
from scipy.stats import false_discovery_control, norm

from studio.statistics import Estimate, mean, share

VerdictWord = Literal["better", "not worse", "worse", "undecided", "too few prompts"]
LEAST_PROMPTS = 6
"""Below, no paired test can reach p < 0.05: of five, the smallest p is 2 / 2⁵ = 0.0625."""
USUAL_SPREAD = 0.025
"""The standard deviation of differences of CLIP scores (cosines) where no pilot tells it."""
_EXACT = 12
"""Prompts up to which every way to flip signs is tried."""
_FLIPS = 9_999
"""Of more, so many at random."""
_RELATIVE_ERROR = 1e-9
"""Sums that differ by less are the same sum, added up in another order."""


@dataclass(frozen=True, kw_only=True)
class Paired:
    """One system against another. `win_rate` counts a tie as half; `p_value` is that of the sign-flip test, `adjusted`
    that after the correction for how many pairs are shown, Holm's or another (else the same)."""

    difference: Estimate
    win_rate: Estimate
    p_value: float
    adjusted: float
    margin: float
    verdict: VerdictWord


def by_prompt(values: Sequence[Sequence[float]]) -> list[float]:
    """The mean of each prompt's values, whatever their number; none may be empty."""
    return [math.fsum(each) / len(each) for each in values]


def compare(
    differences: Sequence[float], margin: float = 0.0, estimate: Callable[[Sequence[float]], Estimate] = mean
) -> Paired:
    """What at least two differences say; see `verdict_of` for `margin` and `compare_all` for `estimate`."""
    (alone,) = compare_all([differences], margin, estimate)
    return alone


def compare_all(
    pairs: Sequence[Sequence[float]],
    margin: float = 0.0,
    estimate: Callable[[Sequence[float]], Estimate] = mean,
    correct: Callable[[Sequence[float]], Sequence[float]] | None = None,
) -> list[Paired]:
    """Several comparisons that are shown together: *better* and *worse* take a p-value below 0.05 after a correction
    for how many there are (`holm`, unless another is given). `estimate` gives the mean of differences with its
    interval."""
    p_values = [sign_flip(differences) for differences in pairs]
    return [
        _paired(differences, estimate(differences), p_value, adjusted, margin)
        for differences, p_value, adjusted in zip(pairs, p_values, (correct or holm)(p_values), strict=True)
    ]


def _paired(
    differences: Sequence[float], difference: Estimate, p_value: float, adjusted: float, margin: float
) -> Paired:
    return Paired(
        difference=difference,
        win_rate=win_rate(differences),
        p_value=p_value,
        adjusted=adjusted,
        margin=margin,
        verdict=verdict_of(difference, adjusted, margin),
    )


def verdict_of(difference: Estimate, p_value: float, margin: float = 0.0) -> VerdictWord:
    """What may be said: *better* or *worse* where both the interval of the mean and the test leave no difference out;
    else *not worse* where the interval lies above -`margin` (non-inferiority; 0: never said)."""
    if difference.n < LEAST_PROMPTS or difference.low is None or difference.high is None:
        return "too few prompts"
    if difference.low > 0 and p_value < 0.05:
        return "better"
    if difference.high < 0 and p_value < 0.05:
        return "worse"
    return "not worse" if margin > 0 and difference.low > -margin else "undecided"


def sign_flip(differences: Sequence[float]) -> float:
    """The two-sided p-value of no difference: how often the mean would be as far from 0 if each sign were a coin's
    (Fisher, 1935). Exact for up to 12 prompts, else by 9 999 flips that are the same every time, of which the observed
    one counts as one more (Phipson & Smyth, 2010)."""
    observed = np.asarray(differences, dtype=float)
    sums = np.abs(_signs(len(observed)) @ observed)
    threshold = abs(observed.sum()) - _RELATIVE_ERROR * np.abs(observed).sum()
    as_far = int((sums >= threshold).sum())
    return as_far / len(sums) if len(observed) <= _EXACT else (as_far + 1) / (len(sums) + 1)


@lru_cache(maxsize=8)
def _signs(count: int) -> np.ndarray:
    if count <= _EXACT:
        return np.array(list(product((-1.0, 1.0), repeat=count)))
    rng = np.random.default_rng([20_261_126, count])
    return rng.integers(0, 2, size=(_FLIPS, count)) * 2.0 - 1.0


def win_rate(differences: Sequence[float]) -> Estimate:
    """In how many prompts the one is ahead, a tie as half, with Wilson's interval."""
    observed = np.asarray(differences, dtype=float)
    wins = float((observed > 0).sum() + 0.5 * (observed == 0).sum())
    interval = share(round(wins), len(observed))
    return Estimate(value=wins / len(observed), n=len(observed), low=interval.low, high=interval.high)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values after Holm's step-down correction (1979): with them, no true null hypothesis of all is rejected at
    0.05 in more than 5 % of cases."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """The p-values after Benjamini and Hochberg's correction (1995): with them, of what is rejected at 0.05 at most 5 %
    are true null hypotheses, in the mean. For exploring: it lets more pass than `holm`."""
    return [float(value) for value in false_discovery_control(p_values)] if len(p_values) else []


def prompts_needed(difference: float, spread: float = USUAL_SPREAD, power: float = 0.8) -> int:
    """How many prompts it takes to see a mean `difference` at 5 % with `power`, where differences of prompts have a
    standard deviation of `spread`; by the normal approximation, and two more for Student's t.

    Raises:
        ValueError: no difference, or a power that cannot be had.
    """
    if not difference or not 0 < power < 1:
        raise ValueError(f"a difference other than 0 and a power between 0 and 1 are needed, not {difference}, {power}")
    quantiles = float(norm.ppf(0.975) + norm.ppf(power))
    return max(LEAST_PROMPTS, math.ceil((quantiles * spread / difference) ** 2) + 2)
