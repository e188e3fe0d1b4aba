"""What a protocol scores, and what it answers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from omegaconf import MISSING
from torch import Tensor, nn

from ..data import Images
from ..data.preprocess import Preprocess
from ..errors import TrainerError
from .features import Extracted, extract


@dataclass
class Exam:
    """An encoder, and the labeled pictures on which it is scored. Features are computed once, when they are asked for.

    Nothing that a protocol does reaches the encoder: its weights, its statistics and its mode stay as they are.
    """

    encoder: nn.Module
    preprocess: Preprocess
    train: Images
    test: Images
    classes: Sequence[str]
    seed: int = 0
    batch_size: int = 500
    progress: bool = False  # is shown
    origin: str = ""  # what the pictures are made from, as Splits have it

    @property
    def device(self) -> torch.device:
        return next(self.encoder.parameters()).device

    @cached_property
    def train_features(self) -> Extracted:
        return self._extract(self.train, "training")

    @cached_property
    def test_features(self) -> Extracted:
        return self._extract(self.test, "test")

    def _extract(self, images: Images, purpose: str) -> Extracted:
        label = f"batches of {purpose} pictures" if self.progress else None
        extracted = extract(self.encoder, self.preprocess.view, images, self.batch_size, progress=label)
        require_finite(extracted.features, f"{purpose} pictures")
        return extracted


@dataclass(frozen=True)
class Outcome:
    """Right answers among the test pictures."""

    correct: int
    test_images: int
    train_images: int
    chosen: dict[str, float] | None = None  # what the protocol chose by itself, such as the decay

    @property
    def accuracy(self) -> float:
        return self.correct / self.test_images

    @classmethod
    def of(cls, scores: Tensor, labels: Tensor, train_images: int, chosen: dict[str, float] | None = None) -> "Outcome":
        """From scores `(test images, classes)`, of which the largest is the answer, and labels `(test images,)`."""
        return cls(int((scores.argmax(1) == labels).sum()), len(labels), train_images, chosen)


@dataclass
class Protocol(ABC):
    """The options of a protocol are its fields, with their defaults."""

    name: str = MISSING  # under which it was chosen

    def check(self, exam: Exam) -> None:
        """Raises TrainerError, before anything is computed, for pictures that it can't be used with."""
        for purpose, images in (("fit on", exam.train), ("test on", exam.test)):
            if len(present := images.labels.unique()) < 2:
                raise TrainerError(
                    f"All {len(images)} pictures to {purpose} are of one class ({exam.classes[present[0]]}): any encoder "
                    "would be right. Give pictures of two classes at least."
                )

    @abstractmethod
    def score(self, exam: Exam) -> Outcome:
        """Fits on the training pictures alone and counts right answers on the test pictures."""


def require_finite(features: Tensor, whose: str) -> None:
    """Raises TrainerError for features `(pictures, features)` with which nothing can be fitted."""
    bad = int((~features.isfinite()).any(1).sum())
    if bad:
        raise TrainerError(
            f"The encoder's features are NaN or infinite for {bad} of {len(features)} {whose}. Its weights, or the "
            "statistics of its batch norms, are not finite or too large: look at the run's metrics.csv."
        )
