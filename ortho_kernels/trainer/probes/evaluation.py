"""What a frozen encoder has learned: weighted kNN and a linear probe on its features, beside kNN on raw pixels."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..data import Splits
from ..data.views import Views
from ..options import at_least, more_than, one_of, option
from ..randomness import generator_for
from .features import extract
from .knn import knn_predict
from .logistic import logistic_regression


@dataclass
class EvaluationSettings:
    data: str | None = option(None, "source of other labeled pictures to score on, or none; by default the run's own")
    options: dict[str, Any] = option({}, "options of that source: {root: FOLDER}")
    network: str = option("student", "encoder that is judged and exported", one_of("student", "teacher", "ema"))
    train_images: int = option(10_000, "labeled images, drawn by the seed if there are more", at_least(2))
    test_images: int = option(10_000, "test images, drawn at random", at_least(2))
    neighbors: int = option(20, "neighbors that vote in kNN", at_least(1))
    temperature: float = option(0.07, "divides the cosines in their votes", more_than(0))
    probe_decay: float = option(1e-3, "weight decay of the linear probe, on standardized features", at_least(0))
    batch_size: int = option(500, "images of a batch", at_least(1))
    every: float | None = option(
        None, "epochs from one look at the encoder to the next; 0.25: four an epoch", more_than(0)
    )
    sample: int = option(2000, "training images, and test images, of such a look; drawn once by the seed", at_least(2))


@dataclass(frozen=True)
class Scores:
    """Shares of right answers on the test images."""

    knn: float
    linear_probe: float
    raw_pixels_knn: float
    chance: float
    train_images: int
    test_images: int


def evaluate(
    encoder: nn.Module, views: Views, splits: Splits, settings: EvaluationSettings, seed: int
) -> tuple[Scores | None, Tensor]:
    """The scores of the encoder as it stands, and features `(images, features)` that show what it makes of pictures.

    These are the test features that the scores rest on. Without labels there are no scores, and the features are those of
    pretraining pictures.
    """
    if splits.labeled is None:
        images = splits.pretraining.subset(settings.test_images, generator_for("cpu", seed, "evaluation sample"))
        return None, extract(encoder, views.plain, images, settings.batch_size).features
    train_split, test_split = splits.labeled
    train_images = train_split.subset(settings.train_images, generator_for("cpu", seed, "evaluation train"))
    test_images = test_split.subset(settings.test_images, generator_for("cpu", seed, "evaluation test"))
    train = extract(encoder, views.plain, train_images, settings.batch_size, raw=True)
    test = extract(encoder, views.plain, test_images, settings.batch_size, raw=True)
    classes = len(splits.classes)

    def knn(bank: Tensor, queries: Tensor) -> float:
        votes = knn_predict(bank, train.labels, queries, classes, settings.neighbors, settings.temperature)
        return accuracy(votes, test.labels)

    probe = logistic_regression(train.features, train.labels, classes, settings.probe_decay)
    scores = Scores(
        knn=knn(train.features, test.features),
        linear_probe=accuracy(probe(test.features), test.labels),
        raw_pixels_knn=knn(train.raw_pixels, test.raw_pixels),
        chance=test.labels.bincount().max().item() / len(test.labels),
        train_images=len(train.labels),
        test_images=len(test.labels),
    )
    return scores, test.features


def accuracy(scores: Tensor, labels: Tensor) -> float:
    return (scores.argmax(1) == labels).double().mean().item()
