"""Pictures in memory, as bytes: the whole of a small data set takes less room than one of its batches in floats."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Images:
    """`pixels` (images, channels, height, width) in uint8, and the class of each."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def subset(self, size: int, generator: torch.Generator) -> "Images":
        """`size` images drawn without replacement, or all of them if there are no more."""
        if size >= len(self):
            return self
        chosen = torch.randperm(len(self), generator=generator)[:size]
        return Images(self.pixels[chosen], self.labels[chosen])


@dataclass(frozen=True)
class Splits:
    """What a data source gives: pretraining sees `train` without its labels, evaluation sees both."""

    train: Images
    test: Images
    classes: list[str]

    @property
    def channels(self) -> int:
        return self.train.pixels.shape[1]
