"""Protocols against Lightly, scikit-learn and loops written out, on the pixels of handwritten digits; and that nothing
reaches the encoder."""

import copy
import resource

import numpy as np
import pytest
import torch
from forking import forking_context
from lightly.utils.benchmarking import knn_predict as lightly_knn
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from ortho_kernels.trainer.data.digits import Digits
from ortho_kernels.trainer.data.preprocess import Preprocess
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.probes import knn
from ortho_kernels.trainer.probes.exam import Exam
from ortho_kernels.trainer.probes.knn import knn_predict
from ortho_kernels.trainer.probes.labeled import draw_share
from ortho_kernels.trainer.probes.logistic import logistic_regression
from ortho_kernels.trainer.probes.protocols import PROTOCOLS
from ortho_kernels.trainer.probes.sgd import new_classifier

SPLITS = Digits().load()


class Blurred(nn.Module):
    """An encoder with every kind of state that training could change: weights, statistics, dropout, mixed modes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(1, 12, 3, stride=2), nn.BatchNorm2d(12), nn.ReLU(), nn.Flatten())
        self.drop = nn.Dropout(0.5)
        self.features = 108
        self.train()
        self.layers[1].eval()

    def forward(self, images):
        return self.drop(self.layers(images))


def exam(encoder=None, train=None, test=None, seed=0):
    return Exam(
        encoder=encoder or nn.Sequential(nn.Flatten(), nn.Linear(64, 64, bias=False).requires_grad_(False)),
        preprocess=Preprocess(channels=1, decode_size=8, size=8, mean=(0.3,), std=(0.35,)),
        train=SPLITS.train if train is None else train,
        test=SPLITS.test if test is None else test,
        classes=SPLITS.classes,
        seed=seed,
    )


def state_of(encoder):
    """All that a protocol must not change."""
    modes = [module.training for module in encoder.modules()]
    parameters = [(each.requires_grad, each.grad) for each in encoder.parameters()]
    return {name: value.clone() for name, value in encoder.state_dict().items()}, modes, parameters


def few(count, seed=0):
    """So many training pictures of each class."""
    places = [(SPLITS.train.labels == label).nonzero().flatten()[seed : seed + count] for label in range(10)]
    return SPLITS.train.select(torch.cat(places))


@pytest.mark.parametrize("neighbors", [1, 20, 200])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_knn_is_right_where_lightlys_is(neighbors, temperature):
    questions = exam()
    train, test = questions.train_features, questions.test_features
    bank, queries = (nn.functional.normalize(each.features, dim=1) for each in (train, test))
    theirs = lightly_knn(queries, bank.T, train.labels, 10, neighbors, temperature)[:, 0]
    outcome = PROTOCOLS["knn"](neighbors=neighbors, temperature=temperature).score(questions)
    assert (outcome.test_images, outcome.train_images) == (449, 1348)
    assert abs(outcome.accuracy - (theirs == test.labels).double().mean().item()) <= 1e-3
    assert outcome.accuracy > 0.8


def test_knn_votes_in_chunks_are_those_of_a_loop(monkeypatch):
    generator = np.random.default_rng(0)
    bank, queries = generator.normal(size=(53, 6)), generator.normal(size=(17, 6))
    labels = generator.integers(4, size=53)
    expected = np.zeros((17, 4))
    for i, query in enumerate(queries):
        cosines = [query @ each / np.linalg.norm(query) / np.linalg.norm(each) for each in bank]
        for place in sorted(range(53), key=lambda j: -cosines[j])[:9]:
            expected[i, labels[place]] += np.exp((cosines[place] - max(cosines)) / 0.2)
    monkeypatch.setattr(knn, "CHUNK", 42)
    monkeypatch.setattr(knn, "QUERIES", 5)
    votes = knn_predict(
        torch.from_numpy(bank).float(), torch.from_numpy(labels), torch.from_numpy(queries).float(), 4, 9, 0.2
    )
    np.testing.assert_allclose(votes, expected, rtol=1e-4, atol=1e-6)


def _grown_by_large_bank():
    """The MiB by which this process grows beyond two large tables; all cosines at once would be 560 MB."""
    bank, labels = torch.randn(200_000, 32), torch.arange(200_000) % 10
    queries = torch.randn(700, 32)
    knn_predict(bank[:1000], labels[:1000], queries[:10], 10, 20, 0.07)  # what torch needs for itself
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    knn_predict(bank, labels, queries, 10, 200, 0.07)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def test_knn_needs_little_memory_whatever_the_bank():
    with forking_context().Pool(1) as pool:
        assert pool.apply(_grown_by_large_bank) < 110


def test_logistic_regression_is_scikit_learns():
    questions = exam(Blurred())
    train, test = questions.train_features, questions.test_features
    scaler = StandardScaler(with_std=False).fit(train.features)
    std = train.features.double().std(0).clamp(min=1e-6).numpy()
    inputs, queries = (scaler.transform(each.features.double()) / std for each in (train, test))
    for decay in (1e-3, 1e-1):
        peer = LogisticRegression(C=1 / (decay * len(inputs)), tol=1e-6, max_iter=5000).fit(inputs, train.labels)
        ours = PROTOCOLS["logistic"](decays=[decay]).score(questions)
        assert abs(ours.accuracy - peer.score(queries, test.labels)) <= 1e-3
        probabilities = logistic_regression(train.features, train.labels, 10, decay)(test.features).softmax(1)
        np.testing.assert_allclose(probabilities, peer.predict_proba(queries), atol=0.01)
        assert ours.chosen == {"decay": decay}


def test_the_decay_is_chosen_on_pictures_held_out_and_all_are_fitted_with_it():
    torch.manual_seed(0)
    questions = exam(nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), train=few(50))  # five features are not enough
    protocol = PROTOCOLS["logistic"](decays=[1e-4, 1e-2, 1e4])
    outcome = protocol.score(questions)
    features, labels, _ = questions.train_features
    held = protocol._held_out(labels, seed=0)
    assert labels[held].bincount().tolist() == [5] * 10
    right = {}
    for decay in (1e-4, 1e-2, 1e4):
        predicted = logistic_regression(features[~held], labels[~held], 10, decay)(features[held]).argmax(1)
        right[decay] = (predicted == labels[held]).sum().item()
    assert len(set(right.values())) > 1
    best = max(reversed(right), key=right.get)  # of equal ones the strongest
    assert outcome.chosen == {"decay": best, "validation_accuracy": right[best] / 50, "validation_images": 50}
    refitted = logistic_regression(features, labels, 10, best)(questions.test_features.features).argmax(1)
    assert outcome.correct == (refitted == questions.test_features.labels).sum()
    assert not torch.equal(protocol._held_out(labels, seed=1), held)


def test_linear_evaluation_is_sgd_written_out():
    """In NumPy and float64, on plain views: 2 batches of 40 of 100 pictures an epoch, a tenth of the rate from 60 % on."""
    questions = exam(train=few(10), seed=3)
    protocol = PROTOCOLS["linear"](epochs=5, lr=2.0, batch_size=40, momentum=0.8, views="plain")
    outcome = protocol.score(questions)
    features, labels = (each.numpy() for each in questions.train_features[:2])
    first = new_classifier(questions, 64)
    weight, bias = (each.detach().double().numpy() for each in (first.weight, first.bias))
    moved = [np.zeros_like(weight), np.zeros_like(bias)]
    for epoch, rate in enumerate([2.0, 2.0, 2.0, 0.2, 0.02]):
        batches = protocol.order(100, 3, epoch)
        assert [len(places) for places in batches] == [40, 40]
        for places in batches:
            inputs = features[places.numpy()].astype(np.float64)
            scores = inputs @ weight.T + bias
            shares = np.exp(scores - scores.max(1, keepdims=True))
            shares /= shares.sum(1, keepdims=True)
            slope = (shares - np.eye(10)[labels[places.numpy()]]) / 40
            moved = [0.8 * moved[0] + slope.T @ inputs, 0.8 * moved[1] + slope.sum(0)]
            weight, bias = weight - rate * 40 / 256 * moved[0], bias - rate * 40 / 256 * moved[1]
    test = questions.test_features
    expected = (test.features.double().numpy() @ weight.T + bias).argmax(1) == test.labels.numpy()
    assert abs(outcome.correct - expected.sum()) <= 1
    assert outcome.accuracy > 0.6


def test_a_linear_classifier_on_crops_learns_digits():
    words = {"epochs": 40, "lr": 1.0, "min_area": 0.6, "flip": 0.0}
    outcome = PROTOCOLS["linear"](**words).score(exam(train=few(50)))
    assert outcome.accuracy > 0.75
    assert outcome.train_images == 500


def test_crops_and_orders_are_a_function_of_the_seed_and_the_epoch():
    protocol = PROTOCOLS["linear"](batch_size=16)
    images, labels = zip(*protocol.crops(exam(train=few(10)), 0), strict=True)
    again, same = zip(*protocol.crops(exam(train=few(10)), 0), strict=True)
    assert [len(each) for each in images] == [16] * 6
    assert torch.equal(torch.cat(images), torch.cat(again))
    assert torch.equal(torch.cat(labels), torch.cat(same))
    for other in (protocol.crops(exam(train=few(10)), 1), protocol.crops(exam(train=few(10), seed=1), 0)):
        assert not torch.equal(torch.cat([each for each, _ in other]), torch.cat(images))


def test_a_crop_of_the_whole_picture_is_the_plain_view():
    questions = exam()
    pixels = SPLITS.train.batch(torch.arange(5))
    boxes = np.array([[0, 0, 8, 8]] * 5)
    crops = questions.preprocess.crops(pixels, boxes, np.zeros(5, dtype=bool))
    torch.testing.assert_close(crops, questions.preprocess.view(pixels), atol=1e-5, rtol=0)
    mirrored = questions.preprocess.crops(pixels, boxes, np.ones(5, dtype=bool))
    torch.testing.assert_close(mirrored, crops.flip(-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("knn", {}),
        ("logistic", {}),
        ("linear", {"epochs": 2}),
        ("linear", {"epochs": 2, "views": "plain"}),
        ("finetune", {"epochs": 2}),
    ],
)
def test_nothing_reaches_the_encoder(name, options):
    encoder = Blurred()
    encoder.layers[0].bias.requires_grad_(False)
    before, random = state_of(encoder), torch.random.get_rng_state()
    questions = exam(encoder, train=few(6))
    first = PROTOCOLS[name](**options).score(questions)
    after = state_of(encoder)
    assert all(torch.equal(after[0][key], value) for key, value in before[0].items())
    assert after[1:] == before[1:]
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert torch.equal(torch.random.get_rng_state(), random)
    assert PROTOCOLS[name](**options).score(exam(encoder, train=few(6))) == first


def test_fine_tuning_trains_the_encoder_too():
    """A copy whose weights are all zero has features that say nothing; only an encoder that is trained can use them."""
    encoder = Blurred()
    encoder.drop = nn.Identity()
    with torch.no_grad():
        encoder.layers[0].weight.mul_(1e-3)
    words = {"epochs": 12, "lr": 0.5, "min_area": 0.8, "flip": 0.0, "batch_size": 32}
    frozen = copy.deepcopy(encoder)
    tuned = PROTOCOLS["finetune"](**words).score(exam(encoder, train=few(40)))
    assert tuned.accuracy > PROTOCOLS["linear"](**words).score(exam(frozen, train=few(40))).accuracy + 0.1
    assert tuned.accuracy > 0.7


def test_a_share_of_the_labels_has_its_part_of_each_class():
    labels = torch.tensor([0] * 100 + [1] * 40 + [2] * 3)[
        torch.randperm(143, generator=torch.Generator().manual_seed(0))
    ]

    def draw(share, seed=0):
        return draw_share(labels, share, torch.Generator().manual_seed(seed))

    assert labels[draw(0.1)].bincount().tolist() == [10, 4, 1]
    assert labels[draw(0.01)].bincount().tolist() == [1, 1, 1]
    assert draw(1.0).tolist() == list(range(143))
    assert set(draw(0.01).tolist()) < set(draw(0.1).tolist()) < set(draw(0.5).tolist())
    assert draw(0.1).tolist() != draw(0.1, seed=1).tolist()


def test_too_few_pictures_for_a_protocol_are_named_before_anything_is_computed():
    with pytest.raises(TrainerError, match=r"knn\.neighbors=20: there are 10 training pictures .*knn\.neighbors=10"):
        PROTOCOLS["knn"]().check(exam(train=few(1)))
    with pytest.raises(TrainerError, match=r"one training picture a class .*logistic\.decays=1e-3"):
        PROTOCOLS["logistic"]().check(exam(train=few(1)))
    PROTOCOLS["logistic"](decays=[0.1]).check(exam(train=few(1)))
    PROTOCOLS["linear"]().check(exam(train=few(1)))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_pictures_of_one_class_are_refused(name):
    ones = SPLITS.train.select((SPLITS.train.labels == 1).nonzero().flatten())
    with pytest.raises(TrainerError, match=r"All 1\d\d pictures to fit on are of one class \(1\)"):
        PROTOCOLS[name]().check(exam(train=ones))
    with pytest.raises(TrainerError, match=r"All 1\d\d pictures to test on are of one class \(1\)"):
        PROTOCOLS[name]().check(exam(test=ones))


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("bad", [float("nan"), -float("inf")])
def test_features_that_are_not_finite_are_refused(name, bad):
    encoder = Blurred()
    encoder.layers[1].running_mean[3] = bad
    with pytest.raises(TrainerError, match=r"features are NaN or infinite for \d+ of \d+ t\w+ pictures"):
        PROTOCOLS[name]().score(exam(encoder, train=few(3)))


def test_a_rate_that_is_too_large_is_named():
    protocol = PROTOCOLS["linear"](lr=1e38, epochs=3, views="plain")
    with pytest.raises(TrainerError, match=r"protocol=linear: the loss is .* smaller rate than linear\.lr=1e\+38"):
        protocol.score(exam())


@pytest.mark.parametrize(("name", "options"), [("linear", {"views": "plain"}), ("finetune", {})])
def test_a_last_step_too_far_is_named_too(name, options):
    """The loss before it was finite."""
    protocol = PROTOCOLS[name](lr=3e38, momentum=0, epochs=1, batch_size=256, **options)
    with pytest.raises(
        TrainerError, match=rf"protocol={name}: the scores of test .* smaller rate than {name}\.lr=3e\+38"
    ):
        protocol.score(exam(train=few(3)))
