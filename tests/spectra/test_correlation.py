"""Correlations against numpy's."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ortho_kernels.spectra import FeatureSpectrum, StreamingCovariance, largest_correlation
from ortho_kernels.spectra.correlation import thinned


def of(features):
    covariance = StreamingCovariance()
    covariance.update(features)
    return covariance.correlation()


def test_correlations_are_numpys():
    features = np.random.default_rng(0).standard_normal((50, 4)) @ np.random.default_rng(1).standard_normal((4, 4))
    expected = np.corrcoef(features.T)
    np.testing.assert_allclose(of(torch.from_numpy(features)).numpy(), expected, rtol=1e-12)
    others = np.abs(expected[~np.eye(4, dtype=bool)])
    assert largest_correlation(of(torch.from_numpy(features))) == pytest.approx(others.max())


def test_a_feature_that_repeats_another_shows():
    features = torch.randn(50, 3)
    features[:, 2] = -2 * features[:, 0]
    assert largest_correlation(of(features)) == pytest.approx(1)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e4])
def test_what_does_not_vary_is_left_out(value):
    """A mean of equal float32 numbers may be an ulp off, which is no variance."""
    features = torch.randn(777, 3, generator=torch.Generator().manual_seed(0))
    features[:, 1] = value
    correlation = of(features)
    assert correlation[1].isnan().all()
    assert largest_correlation(correlation) == pytest.approx(abs(np.corrcoef(features[:, [0, 2]].double().T)[0, 1]))


@pytest.mark.parametrize("features", [torch.randn(1, 3), torch.randn(9, 1), torch.ones(9, 3), torch.zeros(9, 3)])
def test_fewer_than_two_that_vary_have_no_correlation(features):
    assert math.isnan(largest_correlation(of(features)))


def test_a_broken_feature_is_not_left_out():
    features = torch.randn(9, 4)
    features[3, 1] = math.nan
    assert math.isnan(largest_correlation(of(features)))


@settings(deadline=None)
@given(arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 4)), elements=st.floats(width=32)))
def test_any_features_have_spectra(features):
    """One sample, one dimension, constants, zeros, huge numbers, NaN and Inf."""
    spectrum = FeatureSpectrum.of(torch.from_numpy(features))
    assert spectrum.eigenvalues.shape == (features.shape[1],)
    assert spectrum.correlation.shape == (features.shape[1],) * 2
    if not np.isfinite(features).all():
        assert spectrum.eigenvalues.isnan().all()
        assert all(
            math.isnan(value)
            for value in (
                spectrum.rankme,
                spectrum.effective_rank,
                spectrum.stable_rank,
                spectrum.alpha_req,
                spectrum.largest_correlation,
            )
        )
    else:
        assert spectrum.effective_rank <= features.shape[1] + 1e-6
        assert not spectrum.largest_correlation > 1


def test_a_large_matrix_is_thinned_evenly():
    matrix = torch.arange(100.0)[:, None] * 1000 + torch.arange(100.0)
    kept = thinned(matrix, 4)
    assert kept.diagonal().tolist() == [0, 33033, 66066, 99099]
    assert kept[0].tolist() == [0, 33, 66, 99]
    assert thinned(matrix, 100) is matrix
