"""What a frozen encoder has learned: weighted kNN and a linear probe on its features, beside kNN on raw pixels."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import Images, Splits
from ..data.views import Views
from ..errors import TrainerError
from ..options import at_least, more_than, one_of, option
from ..randomness import generator_for
from .knn import knn_predict
from .linear import linear_probe

RAW_SIZE = 32  # side, in pixels, of what kNN on raw pixels sees


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
    every: int | None = option(None, "epochs from one look at the encoder to the next while it trains", at_least(1))
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
        return None, extract(encoder, views, images, settings.batch_size).features
    train_split, test_split = splits.labeled
    train_images = train_split.subset(settings.train_images, generator_for("cpu", seed, "evaluation train"))
    test_images = test_split.subset(settings.test_images, generator_for("cpu", seed, "evaluation test"))
    train = extract(encoder, views, train_images, settings.batch_size)
    test = extract(encoder, views, test_images, settings.batch_size)
    classes = len(splits.classes)

    def knn(bank: Tensor, queries: Tensor) -> float:
        votes = knn_predict(bank, train.labels, queries, classes, settings.neighbors, settings.temperature)
        return accuracy(votes, test.labels)

    probe = linear_probe(train.features, train.labels, classes, settings.probe_decay)
    scores = Scores(
        knn=knn(train.features, test.features),
        linear_probe=accuracy(probe(test.features), test.labels),
        raw_pixels_knn=knn(train.raw_pixels, test.raw_pixels),
        chance=test.labels.bincount().max().item() / len(test.labels),
        train_images=len(train.labels),
        test_images=len(test.labels),
    )
    return scores, test.features


class Extracted(NamedTuple):
    """Of the pictures that can be decoded; the others are left out."""

    features: Tensor
    raw_pixels: Tensor  # see `raw_pixels`
    labels: Tensor


@torch.no_grad()
def extract(encoder: nn.Module, views: Views, images: Images, batch_size: int) -> Extracted:
    """What is needed of whole images, decoded once, with the encoder in evaluation mode."""
    device = next(encoder.parameters()).device
    training = encoder.training
    encoder.eval()
    batches = [
        Extracted(encoder(views.plain(pixels.to(device))).float().cpu(), raw_pixels(pixels), labels)
        for pixels, labels in readable(images, batch_size)
    ]
    encoder.train(training)
    count = sum(len(batch.labels) for batch in batches)
    if count < 2:
        raise TrainerError(
            f"Evaluation drew {len(images)} pictures, and {count or 'none'} of them can be decoded, where a score needs 2. "
            "Replace broken files, or raise evaluation.train_images and evaluation.test_images; then resume=auto."
        )
    return Extracted(*map(torch.cat, zip(*batches, strict=True)))


def raw_pixels(pixels: Tensor) -> Tensor:
    """The pictures `(batch, channels, height, width)` as vectors `(batch, pixels)`, large ones shrunk to 32 x 32."""
    small = pixels.float()
    if small.shape[-1] > RAW_SIZE:
        small = F.interpolate(small, (RAW_SIZE, RAW_SIZE), mode="bilinear", antialias=True)
    return small.flatten(1)


def readable(images: Images, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The pictures that can be decoded, with their labels, a batch at a time."""
    for indices in torch.arange(len(images)).split(batch_size):
        pixels, readable = images.read(indices)
        if len(pixels):
            yield pixels, images.labels[indices[readable]]


def accuracy(scores: Tensor, labels: Tensor) -> float:
    return (scores.argmax(1) == labels).double().mean().item()
