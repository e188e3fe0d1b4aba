"""Means over seeds, differences and shares, each with its 95 % confidence interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A value and the bounds of its 95 % confidence interval, NaN where too little was measured for one."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean of independent values and Student's interval of it. One value has no interval.

    Raises ValueError for no values.
    """
    if not values:
        raise ValueError("a mean needs a value at least")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Interval(mean)
    from scipy.stats import t  # half a second to import

    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    half = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * math.sqrt(variance / len(values))
    return Interval(mean, mean - half, mean + half)


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Interval:
    """The mean of `second - first`, pair by pair (the same seed), and Student's interval of it."""
    return mean_interval([b - a for a, b in zip(first, second, strict=True)])


def share_interval(hits: int, trials: int) -> Interval:
    """The share of hits, and Wilson's interval of it: right near 0 and 1 also.

    Raises ValueError for no trials or for more hits than trials.
    """
    from scipy.stats import binomtest

    bounds = binomtest(hits, trials).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(hits / trials, float(bounds.low), float(bounds.high))
