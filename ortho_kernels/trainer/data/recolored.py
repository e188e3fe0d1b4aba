"""Pictures in gray or in color, whatever they are stored in: an encoder takes one of both."""

import torch
from torch import Tensor

from .images import Images


class Recolored(Images):
    """The same pictures with 1 or 3 channels."""

    def __init__(self, images: Images, channels: int) -> None:
        self.images = images
        self.labels = images.labels
        self.in_memory = images.in_memory
        self.target = channels

    def read(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        pixels, readable = self.images.read(indices)
        return recolor(pixels, self.target), readable

    def select(self, indices: Tensor) -> "Recolored":
        return Recolored(self.images.select(indices), self.target)


def recolor(pixels: Tensor, channels: int) -> Tensor:
    """uint8 pictures `(batch, 1 or 3, height, width)` in gray (1) or in color (3), as PIL converts them."""
    if pixels.shape[1] == channels:
        return pixels
    if channels == 3:
        return pixels.expand(-1, 3, -1, -1)
    red, green, blue = pixels.int().split(1, dim=1)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).to(torch.uint8)
