"""Pictures as the trainer takes them: bytes, a batch at a time, from memory or from files."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import TrainerError
from .broken import BrokenPictures
from .left_out import LeftOut

Result = TypeVar("Result")


class Images(ABC):
    """Pictures, and the class of each. Evaluation reads all of them at one size."""

    labels: Tensor
    in_memory: bool  # decoded: a batch costs no more than copying it; worker processes prepare others
    pipeline: ClassVar[str] = "device"  # who cuts crops where data.pipeline does not say: device or workers

    @abstractmethod
    def read(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Those of these pictures that can be decoded, as uint8 `(readable, channels, height, width)`.

        The second tensor, bool `(len(indices),)`, is true for these.
        """

    @abstractmethod
    def select(self, indices: Tensor) -> "Images":
        """These pictures alone."""

    def whole(self, indices: Tensor) -> tuple[Tensor | Sequence[Tensor], Tensor]:
        """As `read`, the whole pictures, from which crops are drawn: one tensor, or one for each if sizes differ."""
        return self.read(indices)

    def attempt(self, index: int, work: Callable[[Image.Image], Result]) -> Result | None:
        """What `work` makes of the whole picture as PIL has it; None where the picture can't be decoded."""
        pixels = self.batch(torch.tensor([index]))
        return work(to_pil(pixels[0])) if len(pixels) else None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        return self.batch(torch.tensor([0])).shape[1]

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
    """What a data source gives.

    Pretraining sees `unlabeled` or, where that is None, `train` without its labels. Evaluation fits on `train` and
    scores on `test`; without both there are no scores. Labels are numbers of `classes`; -1 is no label.
    """

    train: Images | None = None
    test: Images | None = None
    classes: Sequence[str] = ()
    unlabeled: Images | None = None
    broken: BrokenPictures = field(default_factory=BrokenPictures)
    left_out: LeftOut = field(default_factory=LeftOut)  # files that are no pictures, hidden, missing, ...
    origin: str = ""  # versions and hashes of what the pictures are made from, where these may change

    @property
    def pretraining(self) -> Images:
        images = self.train if self.unlabeled is None else self.unlabeled
        if images is None:
            raise TrainerError("A data source gave Splits without pictures: they need unlabeled, or train.")
        return images

    @property
    def labeled(self) -> tuple[Images, Images] | None:
        """`train` and `test`, where there are both."""
        return None if self.train is None or self.test is None else (self.train, self.test)

    @property
    def channels(self) -> int:
        return self.pretraining.channels


def to_pil(pixels: Tensor) -> Image.Image:
    """uint8 `(channels, height, width)` as a PIL picture of gray or color."""
    if len(pixels) not in (1, 3):
        raise TrainerError(f"PIL holds pictures of 1 or 3 channels, and these have {len(pixels)}.")
    array = pixels.permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if len(pixels) == 1 else array))


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
