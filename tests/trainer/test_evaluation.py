"""kNN by hand and the linear probe against scikit-learn."""

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from ortho_kernels.trainer.data import MemoryImages, Splits
from ortho_kernels.trainer.data.view_settings import ViewSettings, plan_views
from ortho_kernels.trainer.data.views import Views
from ortho_kernels.trainer.probes.evaluation import EvaluationSettings, evaluate
from ortho_kernels.trainer.probes.features import extract
from ortho_kernels.trainer.probes.knn import knn_predict
from ortho_kernels.trainer.probes.logistic import logistic_regression


def blobs(count, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    centers = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0]])
    return centers[labels] + torch.randn(count, 4, generator=generator), labels


def test_knn_votes_are_weighted_by_similarity():
    bank = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    votes = knn_predict(bank, torch.tensor([0, 1, 1]), torch.tensor([[5.0, 0.0]]), 2, neighbors=2, temperature=0.5)
    expected = torch.tensor([[0.0, -0.4]]).exp()  # (cosine - 1) / temperature; the third is too far
    torch.testing.assert_close(votes, expected)


def test_votes_do_not_vanish_at_a_low_temperature():
    """All cosines are far below 1: exp((cosine - 1) / temperature) would be 0 for every neighbor."""
    bank, queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.4, 0.5], [-0.5, -0.4]])
    votes = knn_predict(bank, torch.tensor([0, 1]), queries, 2, neighbors=2, temperature=1e-4)
    torch.testing.assert_close(votes, torch.tensor([[0.0, 1.0], [0.0, 1.0]]))


def test_knn_asks_no_more_neighbors_than_there_are():
    assert knn_predict(torch.eye(2), torch.tensor([0, 1]), torch.eye(2), 2, neighbors=20, temperature=0.1).shape == (
        2,
        2,
    )


def test_the_linear_probe_is_logistic_regression():
    features, labels = blobs(300, seed=0)
    queries, _ = blobs(100, seed=1)
    ours = logistic_regression(features, labels, classes=3, decay=0.01)(queries).softmax(1)
    scaler = StandardScaler().fit(features)
    peer = LogisticRegression(C=1 / (0.01 * 300), tol=1e-8, max_iter=1000).fit(scaler.transform(features), labels)
    theirs = torch.from_numpy(peer.predict_proba(scaler.transform(queries))).float()
    torch.testing.assert_close(ours, theirs, atol=5e-3, rtol=0)


def test_evaluation_leaves_the_encoder_as_it_was():
    images = torch.randint(0, 256, (12, 1, 4, 4), dtype=torch.uint8)
    encoder = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten())
    views = Views(plan_views("two", ViewSettings(), 4), 4, images, seed=0)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    features = extract(encoder, views.plain, MemoryImages(images, torch.zeros(12)), batch_size=5).features
    assert features.shape == (12, 16)
    assert encoder.training
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_scores_are_shares_and_images_are_drawn_without_replacement():
    images = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8)
    split = MemoryImages(images, torch.arange(40) % 2)
    splits = Splits(split, split, ["a", "b"])
    settings = EvaluationSettings(train_images=30, test_images=100, neighbors=1)
    views = Views(plan_views("two", ViewSettings(), 4), 4, images, seed=0)
    scores, features = evaluate(nn.Sequential(nn.Flatten(), nn.Linear(16, 5)), views, splits, settings, seed=0)
    assert (scores.train_images, scores.test_images, len(features)) == (30, 40, 40)
    assert scores.chance == 0.5
    assert scores.raw_pixels_knn >= 0.75  # 30 of the 40 are their own nearest neighbors
