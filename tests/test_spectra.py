"""Spectra against their definitions, and against everything a broken run can hand them."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from ortho_kernels.spectra import (
    LayerOutputs,
    StreamingCovariance,
    effective_rank,
    rankme,
    representation_eigenvalues,
    singular_values,
)


def test_singular_values_are_descending_and_float64():
    matrix = torch.diag(torch.tensor([1.0, 3.0, 2.0])).bfloat16()
    values = singular_values(matrix)
    assert values.dtype == torch.float64
    torch.testing.assert_close(values, torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))


def test_singular_values_square_to_the_gram_eigenvalues():
    matrix = torch.randn(3, 5, 9, dtype=torch.float64)
    gram = torch.linalg.eigvalsh(matrix @ matrix.mT).flip(-1)
    torch.testing.assert_close(singular_values(matrix) ** 2, gram)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_only_the_broken_matrix_has_a_nan_spectrum(poison):
    matrix = torch.randn(2, 4, 3)
    matrix[1, 2, 0] = poison
    values = singular_values(matrix)
    assert values[0].isfinite().all()
    assert values[1].isnan().all()


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (2, 0, 3)])
def test_empty_matrices_have_empty_spectra(shape):
    assert singular_values(torch.empty(shape)).numel() == 0


@pytest.mark.parametrize(
    ("spectrum", "rank"),
    [([1.0] * 7, 7.0), ([5.0, 0.0, 0.0], 1.0), ([0.0, 0.0], 0.0), ([], 0.0), ([3.0, 3.0, 0.0], 2.0)],
)
def test_effective_rank_of_known_spectra(spectrum, rank):
    assert effective_rank(torch.tensor(spectrum)) == pytest.approx(rank)


def test_effective_rank_is_the_exponential_of_the_entropy():
    spectrum = torch.rand(11, dtype=torch.float64)
    share = (spectrum / spectrum.sum()).tolist()
    assert effective_rank(spectrum) == pytest.approx(math.exp(-sum(p * math.log(p) for p in share)))


def test_effective_rank_averages_over_groups():
    assert effective_rank(torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])) == pytest.approx(2.0)


def test_effective_rank_does_not_hide_nan():
    assert math.isnan(effective_rank(torch.tensor([1.0, math.nan])))
    assert math.isnan(effective_rank(torch.tensor([math.inf, 1.0])))


def test_rankme_counts_the_directions_of_the_features():
    basis = torch.linalg.qr(torch.randn(100, 4)).Q
    assert rankme(basis) == pytest.approx(4.0, rel=1e-5)


def test_representation_eigenvalues_are_those_of_the_covariance():
    features = torch.randn(50, 6, dtype=torch.float64)
    expected = torch.linalg.eigvalsh(torch.cov(features.T)).flip(0)
    torch.testing.assert_close(representation_eigenvalues(features), expected)


def test_a_collapsed_representation_shows_as_zeros():
    features = torch.randn(50, 1) @ torch.ones(1, 5)
    values = representation_eigenvalues(features)
    assert values[0] > 1
    assert ((values[1:] >= 0) & (values[1:] < 1e-6)).all()


def test_broken_features_have_nan_eigenvalues():
    features = torch.randn(8, 3)
    features[0, 0] = math.nan
    assert representation_eigenvalues(features).isnan().all()


def test_a_single_sample_has_no_variance():
    assert representation_eigenvalues(torch.randn(1, 3)).eq(0).all()


def test_features_must_be_a_table():
    with pytest.raises(ValueError, match="samples, dimensions"):
        representation_eigenvalues(torch.randn(3))


def test_a_streamed_covariance_is_numpys():
    """In batches of any size, far from the origin, where a sum of squares would lose its digits."""
    features = 1e4 + torch.randn(1000, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    covariance = StreamingCovariance()
    for batch in features.split([1, 0, 37, 500, 462]):
        covariance.update(batch)
    assert covariance.count == 1000
    torch.testing.assert_close(covariance.mean, features.mean(0))
    torch.testing.assert_close(
        covariance.covariance(), torch.from_numpy(np.cov(features.numpy().T)), rtol=1e-9, atol=1e-12
    )
    expected = np.linalg.eigvalsh(np.cov(features.numpy().T))[::-1].copy()
    torch.testing.assert_close(covariance.eigenvalues(), torch.from_numpy(expected), rtol=1e-9, atol=1e-12)


def test_a_streamed_covariance_refuses_other_dimensions():
    covariance = StreamingCovariance()
    covariance.update(torch.ones(2, 3))
    with pytest.raises(ValueError, match="4 dimensions, and those before had 3"):
        covariance.update(torch.ones(2, 4))


def test_outputs_of_layers_are_features_of_pictures_or_positions():
    network = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Flatten(2), nn.Linear(16, 7))
    images = torch.randn(2, 3, 4, 4)
    seen = {}
    with LayerOutputs(network, ["0", "2"], seen.__setitem__):
        network(images)
    torch.testing.assert_close(seen["0"], network[0](images).mean((2, 3)))
    torch.testing.assert_close(seen["2"], network(images).mean(1))
    with LayerOutputs(network, ["0"], seen.__setitem__, positions=True):
        network(images)
    torch.testing.assert_close(seen["0"], network[0](images).permute(0, 2, 3, 1).reshape(-1, 5))
    assert not network[0]._forward_hooks
    with pytest.raises(ValueError, match="no module 'layer9'"):
        LayerOutputs(network, ["layer9"], seen.__setitem__)
