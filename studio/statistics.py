"""Numbers that are compared, with how sure they are. Every interval is at 95 %."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy.stats import binomtest, bootstrap, norm, t

_RESAMPLES = 2000
_SAME = 1e-12
"""Values that differ by so little of themselves are the same, but for how they were added up."""
_FEWEST, _ENOUGH = 3, 20
"""Observations below which a bootstrap says nothing, and from which on its interval of a mean is wide enough."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number from `n` observations with its interval; of too few of them `low` and `high` are None."""

    value: float
    n: int
    low: float | None = None
    high: float | None = None

    def words(self, form: Callable[[float], str] = "{:.2f}".format) -> str:
        """As it is shown: "3.10 [2.90, 3.40]"."""
        interval = "" if self.low is None or self.high is None else f" [{form(self.low)}, {form(self.high)}]"
        return f"{form(self.value)}{interval}"


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How values lie: their median and quartiles."""

    median: float
    lower: float
    upper: float
    n: int


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of at least one value."""
    lower, middle, upper = (float(value) for value in np.quantile(np.asarray(values, dtype=float), (0.25, 0.5, 0.75)))
    return Spread(median=middle, lower=lower, upper=upper, n=len(values))


def share(right: int, total: int) -> Estimate:
    """A share of successes with Wilson's interval (Wilson, 1927), for at least one trial."""
    interval = binomtest(right, total).proportion_ci(method="wilson")
    return Estimate(value=right / total, n=total, low=float(interval.low), high=float(interval.high))


def median(values: Sequence[float]) -> Estimate:
    """The median of at least one value with its percentile bootstrap interval (Efron, 1979)."""
    return _bootstrapped(np.asarray(values, dtype=float), np.median)


def mean(values: Sequence[float]) -> Estimate:
    """The mean of at least one value, with Student's interval for fewer than 20 of them, else the bootstrap's BCa
    interval (Efron, 1987), made wider as far as bootstraps of a mean are too narrow (Hesterberg, 2015,
    arXiv:1411.5279)."""
    observed = np.asarray(values, dtype=float)
    if 2 <= len(observed) < _ENOUGH:
        half = float(t.ppf(0.975, len(observed) - 1) * observed.std(ddof=1) / np.sqrt(len(observed)))
        value = float(observed.mean())
        return Estimate(value=value, n=len(observed), low=value - half, high=value + half)
    estimate = _bootstrapped(observed, np.mean, "BCa")
    if estimate.low is None or estimate.high is None:
        return estimate
    wider = float(t.ppf(0.975, estimate.n - 1) / norm.ppf(0.975) * np.sqrt(estimate.n / (estimate.n - 1)))
    low, high = (estimate.value + wider * (bound - estimate.value) for bound in (estimate.low, estimate.high))
    return replace(estimate, low=low, high=high)


def mean_share(shares: Sequence[float], most: float = 1.0) -> Estimate:
    """The mean of at least one share, each from 0 to `most`, such as that of a prompt's pictures that are right. A
    bootstrap knows nothing of what it has not seen, where hardly any differ from 0 or `most`; the interval is that of
    Agresti & Coull (1998), with two shares of 0 and two of `most` added: for shares of 0 and 1 a proportion's."""
    return _with_extremes(np.asarray(shares, dtype=float), (0.0, most), 2)


def mean_share_difference(differences: Sequence[float], most: float = 1.0) -> Estimate:
    """The mean of at least one difference of two shares, each from -`most` to `most`, with the interval of Bonett &
    Price (2012) for paired proportions: one difference at each end is added."""
    return _with_extremes(np.asarray(differences, dtype=float), (-most, most), 1)


def _with_extremes(values: np.ndarray, ends: tuple[float, float], count: int) -> Estimate:
    added = np.concatenate([values, np.repeat(ends, count)])
    middle = float(added.mean())
    half = float(norm.ppf(0.975) * added.std() / np.sqrt(len(added)))
    value = float(values.mean())
    low, high = max(ends[0], min(value, middle - half)), min(ends[1], max(value, middle + half))
    return Estimate(value=value, n=len(values), low=low, high=high)


def mean_difference(values: Sequence[float], others: Sequence[float]) -> Estimate:
    """The mean of the differences pair by pair, `values` less `others`, with an interval as that of `mean`.

    Raises:
        ValueError: they are not pairs, or there are none.
    """
    if len(values) != len(others) or not len(values):
        raise ValueError(f"pairs are needed, not {len(values)} and {len(others)} values")
    return mean(list(np.asarray(values, dtype=float) - np.asarray(others, dtype=float)))


def _bootstrapped(
    values: np.ndarray, statistic: Callable[..., Any], method: Literal["percentile", "BCa"] = "percentile"
) -> Estimate:
    value, count = float(statistic(values)), len(values)
    if count < _FEWEST:
        return Estimate(value=value, n=count)
    if np.ptp(values) <= _SAME * np.abs(values).max():  # SciPy has no interval for what does not vary
        return Estimate(value=value, n=count, low=value, high=value)
    interval = bootstrap(
        (values,), statistic, n_resamples=_RESAMPLES, method=method, rng=np.random.default_rng(0)
    ).confidence_interval
    return Estimate(value=value, n=count, low=float(interval.low), high=float(interval.high))
