"""alpha-ReQ against numpy's own fit of a line."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ortho_kernels.spectra import alpha_req, representation_eigenvalues


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.5])
def test_a_power_law_has_its_exponent(alpha):
    assert alpha_req(7 * torch.arange(1, 513, dtype=torch.float64) ** -alpha) == pytest.approx(alpha, abs=1e-12)


@pytest.mark.parametrize(("size", "first", "last"), [(300, 4, 100), (30, 4, 100), (300, 1, 12)])
def test_it_is_the_slope_of_a_weighted_line(size, first, last):
    values = np.sort(np.random.default_rng(0).lognormal(size=size))[::-1]
    index = np.arange(first, min(last, size) + 1)
    slope, _ = np.polyfit(np.log(index), np.log(values[index - 1]), 1, w=index**-0.5)  # numpy squares its weights
    assert alpha_req(torch.from_numpy(values.copy()), first, last) == pytest.approx(-slope)


def test_rounding_is_not_fitted():
    """Twenty samples leave nineteen eigenvalues of a hundred, and 81 that are rounding."""
    features = torch.randn(20, 100, generator=torch.Generator().manual_seed(0))
    values = representation_eigenvalues(features)
    assert alpha_req(values) == pytest.approx(alpha_req(values[:19]))
    assert alpha_req(values) < 1


@pytest.mark.parametrize(
    "values", [[], [1.0], [3.0, 2.0, 1.0, 0.5, 0.2], [0.0] * 50, [1.0, math.nan] * 20, [math.inf] * 9]
)
def test_too_few_or_broken_eigenvalues_have_no_exponent(values):
    assert math.isnan(alpha_req(torch.tensor(values)))


def test_six_eigenvalues_are_enough():
    assert alpha_req(torch.arange(1, 7).float() ** -2) == pytest.approx(2, rel=1e-6)


@given(st.lists(st.floats(0, 1e6, width=32) | st.just(math.nan), max_size=30))
def test_any_spectrum_has_a_number_or_nan(values):
    assert isinstance(alpha_req(torch.tensor(values)), float)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="eigenvalues \\(dimensions,\\) of one covariance"):
        alpha_req(torch.ones(2, 3))
    with pytest.raises(ValueError, match="1 <= first < last, got first=0"):
        alpha_req(torch.ones(9), first=0)
