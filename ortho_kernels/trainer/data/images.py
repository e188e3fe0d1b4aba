"""Pictures as the trainer takes them: bytes, a batch at a time, from memory or from files."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


class Images(ABC):
    """Pictures of one size, and the class of each."""

    labels: Tensor
    decoded: bool  # whether a batch costs no more than copying it; if not, worker processes pay

    @abstractmethod
    def batch(self, indices: Tensor) -> Tensor:
        """These pictures as uint8 `(batch, channels, height, width)`."""

    @abstractmethod
    def select(self, indices: Tensor) -> "Images":
        """These pictures alone."""

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self) -> Tensor:
        """Pictures from everywhere in the set, enough for its mean and deviation."""
        count = min(len(self), 10_000 if self.decoded else 500)
        return self.batch(torch.arange(count) * len(self) // count)

    def subset(self, size: int, generator: torch.Generator) -> "Images":
        """`size` pictures drawn without replacement, or all of them if there are no more."""
        return self if size >= len(self) else self.select(torch.randperm(len(self), generator=generator)[:size])


class MemoryImages(Images):
    """The whole of a small data set takes less room as bytes than one of its batches in floats."""

    decoded = True

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        self.pixels = pixels  # uint8 (images, channels, height, width)
        self.labels = labels

    def batch(self, indices: Tensor) -> Tensor:
        return self.pixels[indices]

    def select(self, indices: Tensor) -> Images:
        return MemoryImages(self.pixels[indices], self.labels[indices])


@dataclass(frozen=True)
class Splits:
    """What a data source gives. Evaluation fits on `train` and scores on `test`; pretraining sees `train` without its
    labels, unless the source has pictures that nobody labelled (STL-10)."""

    train: Images
    test: Images
    classes: list[str]
    unlabelled: Images | None = None

    @property
    def pretraining(self) -> Images:
        return self.train if self.unlabelled is None else self.unlabelled

    @property
    def channels(self) -> int:
        return self.train.batch(torch.tensor([0])).shape[1]
