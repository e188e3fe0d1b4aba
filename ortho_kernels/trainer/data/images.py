"""Pictures as the trainer takes them: bytes, a batch at a time, from memory or from files."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import TrainerError
from .broken import BrokenPictures


class Images(ABC):
    """Pictures of one size, and the class of each."""

    labels: Tensor
    in_memory: bool  # decoded: a batch costs no more than copying it; worker processes prepare others

    @abstractmethod
    def read(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Those of these pictures that can be decoded, as uint8 `(readable, channels, height, width)`.

        The second tensor, bool `(len(indices),)`, is true for these.
        """

    @abstractmethod
    def select(self, indices: Tensor) -> "Images":
        """These pictures alone."""

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor) -> Tensor:
        """Those of these pictures that can be decoded, as uint8 `(readable, channels, height, width)`."""
        return self.read(indices)[0]

    def sample(self) -> Tensor:
        """Pictures from everywhere in the set, enough for its mean and deviation."""
        count = min(len(self), 10_000 if self.in_memory else 500)
        return self.batch(torch.arange(count) * len(self) // count)

    def subset(self, size: int, generator: torch.Generator) -> "Images":
        """`size` pictures drawn without replacement, or all of them if there are no more."""
        return self if size >= len(self) else self.select(torch.randperm(len(self), generator=generator)[:size])


class MemoryImages(Images):
    """The whole of a small data set takes less room as bytes than one of its batches in floats."""

    in_memory = True

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        self.pixels = pixels  # uint8 (images, channels, height, width)
        self.labels = labels

    def read(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.pixels.index_select(0, indices), torch.ones(len(indices), dtype=torch.bool)

    def select(self, indices: Tensor) -> Images:
        return MemoryImages(self.pixels[indices], self.labels[indices])


@dataclass(frozen=True)
class Splits:
    """What a data source gives. Evaluation fits on `train` and scores on `test`; pretraining sees `train` without its
    labels, unless the source has pictures that nobody labeled (STL-10)."""

    train: Images
    test: Images
    classes: list[str]
    unlabeled: Images | None = None
    broken: BrokenPictures = field(default_factory=BrokenPictures)

    @property
    def pretraining(self) -> Images:
        return self.train if self.unlabeled is None else self.unlabeled

    @property
    def channels(self) -> int:
        return self.train.batch(torch.tensor([0])).shape[1]


def require_variance(sample: Tensor, name: str, root: str | None) -> None:
    """Stops where the sample `(pictures, channels, height, width)` of a data set is empty or of one flat color.

    A channel that is flat beside others is legitimate: gray pictures in color, or a color that a camera lacks.
    """
    given = f"data={name}" + (f" in data.root={root}" if root else "")
    if len(sample) == 0:
        raise TrainerError(f"{given}: no picture of the sample from it can be decoded. Replace the broken files.")
    if (sample == sample[:1, :, :1, :1]).all():
        color = ", ".join(map(str, sample[0, :, 0, 0].tolist()))
        raise TrainerError(
            f"{given}: all {len(sample)} pictures of a sample are flat and of one color ({color}), so there is nothing "
            "to learn. Open some of the files: an export may have lost their range, or they are masks."
        )
