"""Weighted kNN on frozen features (Wu et al., CVPR 2018)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import TrainerError
from ..options import at_least, more_than, option
from .exam import Exam, Outcome, Protocol

CHUNK = 2**22  # numbers of a chunk: 16 MiB in float32
QUERIES = 512  # of a chunk, unless their features are more numbers than that


def knn_predict(
    bank: Tensor, labels: Tensor, queries: Tensor, classes: int, neighbors: int, temperature: float
) -> Tensor:
    """Votes `(queries, classes)` of the nearest neighbors by cosine, each weighted by exp(cosine / temperature).

    `bank` is `(images, features)`, `labels` `(images,)`, `queries` `(queries, features)`. At most as many neighbors vote
    as there are. Those of a query are scaled by its nearest one, so that they neither overflow nor vanish.

    Beside its arguments and the votes it needs at most 100 MiB, and 32 KiB a neighbor: both tables are read in chunks.
    """
    votes = torch.zeros(len(queries), classes)
    for rows in _chunks(len(queries), min(QUERIES, CHUNK // queries.shape[1])):
        cosine, near = _nearest(F.normalize(queries[rows], dim=1), bank, labels, min(neighbors, len(bank)))
        votes[rows].scatter_add_(1, near, ((cosine - cosine[:, :1]) / temperature).exp())
    return votes


def _nearest(queries: Tensor, bank: Tensor, labels: Tensor, neighbors: int) -> tuple[Tensor, Tensor]:
    """The largest cosines `(queries, neighbors)`, descending, and the labels that belong to them."""
    cosine, near = torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=labels.dtype)
    for rows in _chunks(len(bank), CHUNK // max(QUERIES, bank.shape[1])):
        here = queries @ F.normalize(bank[rows], dim=1).T
        best, place = here.topk(min(neighbors, here.shape[1]), dim=1)
        cosine, near = torch.cat([cosine, best], 1), torch.cat([near, labels[rows][place]], 1)
        cosine, place = cosine.topk(min(neighbors, cosine.shape[1]), dim=1)
        near = near.gather(1, place)
    return cosine, near


def _chunks(count: int, size: int) -> list[slice]:
    size = max(size, 1)
    return [slice(start, start + size) for start in range(0, count, size)]


@dataclass
class KNN(Protocol):
    """Weighted kNN by cosine."""

    name: str = "knn"
    neighbors: int = option(20, "neighbors that vote", at_least(1))
    temperature: float = option(0.07, "divides the cosines in their votes", more_than(0))

    def check(self, exam: Exam) -> None:
        super().check(exam)
        self._require(len(exam.train))

    def score(self, exam: Exam) -> Outcome:
        train, test = exam.train_features, exam.test_features
        self._require(len(train.labels))
        votes = knn_predict(
            train.features, train.labels, test.features, len(exam.classes), self.neighbors, self.temperature
        )
        return Outcome.of(votes, test.labels, len(train.labels))

    def _require(self, images: int) -> None:
        if images < self.neighbors:
            raise TrainerError(
                f"knn.neighbors={self.neighbors}: there are {images} training pictures to vote. Give knn.neighbors={images} "
                "or fewer, or more pictures (labels, train_images)."
            )
