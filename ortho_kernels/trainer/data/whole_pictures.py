"""Whole pictures of several sizes: in memory, and as a batch."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .decoding import middle_square
from .images import Images

BLOCK_BYTES = 64 * 1024**2  # few enough blocks that worker processes can open each


@dataclass
class Padded:
    """Pictures as one uint8 tensor `(pictures, channels, height, width)`, with zeros below and to the right of each."""

    pixels: Tensor
    sizes: np.ndarray  # (pictures, 2), the height and width of each; stays on the host, which draws crops

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device: torch.device, non_blocking: bool = True) -> "Padded":
        return Padded(self.pixels.to(device, non_blocking=non_blocking), self.sizes)

    def pin_memory(self, device: str | None = None) -> "Padded":
        return Padded(self.pixels.pin_memory(), self.sizes)


def collate(pictures: Sequence[Tensor]) -> Tensor | Padded:
    """Pictures `(channels, height, width)` as one batch."""
    sizes = np.array([picture.shape[1:] for picture in pictures])
    if (sizes == sizes[0]).all():
        return torch.stack(list(pictures))
    pixels = torch.zeros(len(pictures), len(pictures[0]), *sizes.max(0).tolist(), dtype=torch.uint8)
    for row, picture, (height, width) in zip(pixels, pictures, sizes.tolist(), strict=True):
        row[:, :height, :width] = picture
    return Padded(pixels, sizes)


class WholePictures(Images):
    """Pictures in memory whose shorter side is the same. Evaluation sees the middle square of each."""

    in_memory = True

    def __init__(self, blocks: list[Tensor], places: Tensor, labels: Tensor) -> None:
        self.blocks = blocks  # flat uint8
        self.places = places  # int64 (images, 5): block, start, channels, height, width
        self.labels = labels

    @property
    def channels(self) -> int:
        return int(self.places[0, 2])

    def read(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        pictures, readable = self.whole(indices)
        return torch.stack([middle_square(picture) for picture in pictures]), readable

    def whole(self, indices: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        pictures = []
        for block, start, *shape in self.places[indices].tolist():
            pictures.append(self.blocks[block].narrow(0, start, math.prod(shape)).view(shape))
        return pictures, torch.ones(len(indices), dtype=torch.bool)

    def select(self, indices: Tensor) -> "WholePictures":
        return WholePictures(self.blocks, self.places[indices], self.labels[indices])


def pack(pictures: Iterable[Tensor]) -> tuple[list[Tensor], Tensor]:
    """The blocks and places of uint8 pictures `(channels, height, width)`, which are taken one after the other."""
    blocks: list[Tensor] = []
    pending: list[Tensor] = []
    places, length = [], 0
    for picture in pictures:
        places.append((len(blocks), length, *picture.shape))
        pending.append(picture.flatten())
        length += picture.numel()
        if length >= BLOCK_BYTES:
            blocks.append(torch.cat(pending))
            pending, length = [], 0
    if pending:
        blocks.append(torch.cat(pending))
    return blocks, torch.tensor(places, dtype=torch.int64).view(-1, 5)
