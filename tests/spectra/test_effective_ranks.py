"""Spectra against their definitions, and against everything a broken run can hand them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ortho_kernels.spectra import effective_rank, rankme, representation_eigenvalues, singular_values, stable_rank


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


def test_rankme_is_the_papers_formula_with_its_epsilon():
    features = 3 + np.random.default_rng(0).standard_normal((40, 7)) @ np.diag([5, 3, 2, 1, 0.5, 0.1, 0.01])
    sigma = np.sqrt(np.linalg.eigvalsh(features.T @ features))
    for epsilon in (0.0, 1e-7, 1e-3):
        p = sigma / np.abs(sigma).sum() + epsilon
        assert rankme(torch.from_numpy(features), epsilon) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-7)


def test_stable_rank_is_the_ratio_of_two_norms():
    matrix = np.random.default_rng(1).standard_normal((6, 9))
    expected = (np.linalg.norm(matrix) / np.linalg.norm(matrix, 2)) ** 2
    assert stable_rank(singular_values(torch.from_numpy(matrix))) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("spectrum", "rank"),
    [([1.0] * 7, 7.0), ([5.0, 0.0], 1.0), ([0.0, 0.0], 0.0), ([], 0.0), ([[1.0, 1.0], [2.0, 0.0]], 1.5)],
)
def test_stable_rank_of_known_spectra(spectrum, rank):
    assert stable_rank(torch.tensor(spectrum)) == pytest.approx(rank)


def test_stable_rank_does_not_hide_nan():
    assert math.isnan(stable_rank(torch.tensor([math.nan, 1.0])))
    assert math.isnan(stable_rank(torch.tensor([math.inf, 1.0])))


@given(st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=20))
def test_ranks_lie_between_one_and_the_dimensions(spectrum):
    spectrum = torch.tensor(spectrum, dtype=torch.float64)
    least = 1.0 if spectrum.square().max() > 0 else 0.0
    assert least - 1e-9 <= stable_rank(spectrum) <= len(spectrum) + 1e-9
    assert (1.0 if spectrum.sum() > 0 else 0.0) - 1e-9 <= effective_rank(spectrum) <= len(spectrum) + 1e-9
