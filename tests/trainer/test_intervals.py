"""Confidence intervals against scipy's own tests and a written-out formula."""

import math

import numpy as np
import pytest
from scipy import stats

from ortho_kernels.trainer.report.intervals import mean_interval, paired_difference, share_interval

VALUES = [83.1, 84.9, 82.2, 85.0, 83.7]


def test_the_interval_of_a_mean_is_students():
    expected = stats.ttest_1samp(VALUES, 0).confidence_interval(0.95)
    interval = mean_interval(VALUES)
    assert (interval.value, interval.low, interval.high) == pytest.approx((np.mean(VALUES), *expected), rel=1e-12)
    assert interval.half_width == pytest.approx(interval.high - interval.value)


def test_one_value_has_no_interval():
    interval = mean_interval([3.0])
    assert interval.value == 3
    assert math.isnan(interval.low)
    assert math.isnan(interval.half_width)
    with pytest.raises(ValueError, match="needs a value"):
        mean_interval([])


def test_a_paired_difference_is_that_of_the_paired_test():
    """The seeds' common ups and downs are not counted as noise."""
    other = [value + 0.5 + 0.01 * i for i, value in enumerate(VALUES)]
    expected = stats.ttest_rel(other, VALUES).confidence_interval(0.95)
    interval = paired_difference(VALUES, other)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert interval.low > 0


def test_a_pair_is_whole():
    with pytest.raises(ValueError, match="zip"):
        paired_difference([1.0], [1.0, 2.0])


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (10, 10), (8378, 10000)])
def test_the_interval_of_a_share_is_wilsons(hits, trials):
    z, share = stats.norm.ppf(0.975), hits / trials
    center = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    interval = share_interval(hits, trials)
    assert interval.value == share
    assert (interval.low, interval.high) == pytest.approx((center - half, center + half), abs=1e-12)
