"""Numbers that are compared, with how sure they are. Every interval is at 95 %."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest, bootstrap

_RESAMPLES = 2000
_FEWEST = 3
"""Observations below which a bootstrap says nothing."""


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


def mean_difference(values: Sequence[float], others: Sequence[float]) -> Estimate:
    """The mean of the differences pair by pair, `values` less `others`, with its percentile bootstrap interval.

    Raises:
        ValueError: they are not pairs, or there are none.
    """
    if len(values) != len(others) or not len(values):
        raise ValueError(f"pairs are needed, not {len(values)} and {len(others)} values")
    return _bootstrapped(np.asarray(values, dtype=float) - np.asarray(others, dtype=float), np.mean)


def _bootstrapped(values: np.ndarray, statistic: Callable[..., Any]) -> Estimate:
    value, count = float(statistic(values)), len(values)
    if count < _FEWEST:
        return Estimate(value=value, n=count)
    if np.ptp(values) == 0:  # SciPy has no interval for what does not vary
        return Estimate(value=value, n=count, low=value, high=value)
    interval = bootstrap(
        (values,), statistic, n_resamples=_RESAMPLES, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return Estimate(value=value, n=count, low=float(interval.low), high=float(interval.high))
