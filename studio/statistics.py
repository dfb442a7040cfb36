"""Numbers that are compared, with how sure they are. Every interval is at 95 %."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy.stats import binomtest, bootstrap, norm, t

_RESAMPLES = 2000
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
    if np.ptp(values) == 0:  # SciPy has no interval for what does not vary
        return Estimate(value=value, n=count, low=value, high=value)
    interval = bootstrap(
        (values,), statistic, n_resamples=_RESAMPLES, method=method, rng=np.random.default_rng(0)
    ).confidence_interval
    return Estimate(value=value, n=count, low=float(interval.low), high=float(interval.high))
