"""How a trained encoder is scored: protocols, whose options are their fields, and what each gives."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from omegaconf import MISSING
from torch import nn

from ..data import Images
from ..options import at_least, more_than, option
from ..registry import Registry
from .evaluation import accuracy
from .features import Extracted, View, extract
from .knn import knn_predict
from .linear import linear_probe


@dataclass
class Exam:
    """An encoder, and the labeled pictures on which it is scored. Features are computed once."""

    encoder: nn.Module
    view: View
    train: Images
    test: Images
    classes: Sequence[str]
    seed: int = 0
    batch_size: int = 500

    @cached_property
    def features(self) -> tuple[Extracted, Extracted]:
        """Of the pictures to fit on, and of those to test on."""
        return extract(self.encoder, self.view, self.train, self.batch_size), extract(
            self.encoder, self.view, self.test, self.batch_size
        )


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


@dataclass
class Protocol(ABC):
    """The options of a protocol are its fields, with their defaults."""

    name: str = MISSING  # under which it was chosen

    @abstractmethod
    def score(self, exam: Exam) -> Outcome:
        """Fits on the training pictures alone and counts right answers on the test pictures."""


@dataclass
class KNN(Protocol):
    """Weighted kNN by cosine (Wu et al., CVPR 2018)."""

    name: str = "knn"
    neighbors: int = option(20, "neighbors that vote", at_least(1))
    temperature: float = option(0.07, "divides the cosines in their votes", more_than(0))

    def score(self, exam: Exam) -> Outcome:
        train, test = exam.features
        votes = knn_predict(
            train.features, train.labels, test.features, len(exam.classes), self.neighbors, self.temperature
        )
        return outcome(accuracy(votes, test.labels), train, test)


@dataclass
class Logistic(Protocol):
    """Logistic regression on standardized features by L-BFGS."""

    name: str = "logistic"
    decay: float = option(1e-3, "weight decay", at_least(0))

    def score(self, exam: Exam) -> Outcome:
        train, test = exam.features
        probe = linear_probe(train.features, train.labels, len(exam.classes), self.decay)
        return outcome(accuracy(probe(test.features), test.labels), train, test)


def outcome(share: float, train: Extracted, test: Extracted) -> Outcome:
    return Outcome(round(share * len(test.labels)), len(test.labels), len(train.labels))


PROTOCOLS: Registry[Protocol] = Registry(
    "protocol", Protocol, "ortho_kernels.protocols", {"knn": KNN, "logistic": Logistic}
)
