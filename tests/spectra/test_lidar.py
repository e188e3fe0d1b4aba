"""LiDAR against the paper's formulas, written out."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ortho_kernels.spectra import lidar


def written_out(features, delta, epsilon):
    """Thilak et al., equations 1 to 4, by loops over pictures and views."""
    pictures, views, dimensions = features.shape
    overall = np.mean([np.mean(features[i], axis=0) for i in range(pictures)], axis=0)
    between, within = np.zeros((dimensions, dimensions)), np.zeros((dimensions, dimensions))
    for i in range(pictures):
        center = np.mean(features[i], axis=0)
        between += np.outer(center - overall, center - overall) / (pictures - 1)
        for k in range(views):
            within += np.outer(features[i, k] - center, features[i, k] - center) / (pictures * (views - 1))
    within += delta * np.eye(dimensions)
    values = np.clip(
        np.real(np.linalg.eigvals(np.linalg.solve(within, between))), 0, None
    )  # similar to the symmetric one
    p = values / np.abs(values).sum() + epsilon
    p = p[p > 0]
    return np.exp(-(p * np.log(p)).sum())


@pytest.mark.parametrize(("delta", "epsilon"), [(1e-4, 0.0), (1e-4, 1e-7), (0.3, 1e-3)])
def test_it_is_the_papers_formula(delta, epsilon):
    draw = np.random.default_rng(0)
    scales = np.array([3, 2, 1, 0.5, 0.1, 0.01])
    features = draw.standard_normal((40, 1, 6)) * scales + 0.3 * draw.standard_normal((40, 5, 6))
    assert lidar(torch.from_numpy(features), delta, epsilon) == pytest.approx(
        written_out(features, delta, epsilon), rel=1e-9
    )


def test_directions_that_only_views_differ_in_do_not_count():
    """Of ten dimensions three tell pictures apart; RankMe would count all ten."""
    draw = torch.Generator().manual_seed(0)
    pictures = torch.zeros(2000, 1, 10)
    pictures[..., :3] = torch.randn(2000, 1, 3, generator=draw)
    features = pictures + 0.1 * torch.randn(2000, 50, 10, generator=draw)
    assert lidar(features) == pytest.approx(3, abs=0.05)


def test_it_is_at_most_the_pictures_less_one():
    assert lidar(torch.randn(4, 6, 20)) <= 3 + 1e-9


def test_pictures_of_one_mean_have_rank_0():
    assert lidar(torch.ones(5, 3, 4)) == 0


@pytest.mark.parametrize("shape", [(1, 3, 4), (5, 1, 4), (0, 3, 4), (5, 3, 0)])
def test_one_picture_or_one_view_has_no_rank(shape):
    assert math.isnan(lidar(torch.randn(shape)))


def test_broken_features_have_no_rank():
    features = torch.randn(5, 3, 4)
    features[0, 0, 0] = math.inf
    assert math.isnan(lidar(features))


@settings(deadline=None)
@given(arrays(np.float32, (4, 3, 2), elements=st.floats(-1e6, 1e6, width=32)))
def test_any_features_have_a_rank_within_bounds(features):
    assert 0 <= lidar(torch.from_numpy(features)) <= 2 + 1e-9


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match=r"\(pictures, views, dimensions\), got shape \(3, 4\)"):
        lidar(torch.ones(3, 4))
    with pytest.raises(ValueError, match="delta must be above 0"):
        lidar(torch.ones(3, 2, 4), delta=0)
