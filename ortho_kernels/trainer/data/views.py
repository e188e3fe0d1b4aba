"""The random views of a batch that a method is trained on, as each data set's papers draw them."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed.processes import ALONE, Ranks
from ..randomness import host_generator_for
from .colors import ColorDraws, color, draw_colors
from .crops import cut_batch
from .pipelines import Pictures, crops_of
from .view_settings import View
from .whole_pictures import Padded

CHUNK = 2**18  # numbers that a CPU works on at a time: as floats they stay in its cache


class Views(nn.Module):
    """The normalized views of a batch; a function of the batch and its number.

    A batch is whole uint8 pictures (a tensor `(batch, channels, height, width)`, or `Padded` where they differ in size),
    the uint8 crops of each view, or views that are ready, as floats.

    Of several processes each holds its part of a batch; together they draw what one process would.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        plan: list[View],
        size: int,
        sample: Tensor,
        seed: int,
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__()
        self.plan = plan
        self.size = size
        self.decode_size = sample.shape[-1]  # side of the pictures that evaluation sees
        self.seed = seed
        self.ranks = ranks
        # The statistics of the training set are part of the data, not of what is learned.
        pixels = sample.float().div(255)
        self.register_buffer("mean", pixels.mean((0, 2, 3))[:, None, None], persistent=False)
        self.register_buffer("std", pixels.std((0, 2, 3)).clamp(min=1e-3)[:, None, None], persistent=False)

    @torch.no_grad()
    def forward(self, pictures: Pictures, number: int) -> list[Tensor]:
        if isinstance(pictures, list):
            if pictures[0].is_floating_point():
                return pictures
            return [self._view(view, number, crops) for view, crops in enumerate(pictures)]
        pixels = pictures.pixels if isinstance(pictures, Padded) else pictures
        sizes = pictures.sizes if isinstance(pictures, Padded) else np.tile(pixels.shape[-2:], (len(pixels), 1))
        views = len(self.plan)
        crops = crops_of(self.plan, self.ranks.count * len(pixels), self.seed, number)[self._rows(len(pixels) * views)]
        boxes = crops.boxes(sizes.repeat(views, axis=0))
        return [self._view(view, number, pixels, boxes[view::views], crops.flips[view::views]) for view in range(views)]

    def plain(self, pixels: Tensor) -> Tensor:
        """The images as evaluation sees them: whole, scaled to the size of a large view."""
        return plain_view(pixels, self.size, self.mean, self.std)

    def _rows(self, count: int) -> slice:
        """This process's rows of what is drawn, `count` for each."""
        return slice(self.ranks.rank * count, (self.ranks.rank + 1) * count)

    def _view(
        self,
        view: int,
        number: int,
        pixels: Tensor,
        boxes: np.ndarray | None = None,
        flips: np.ndarray | None = None,
    ) -> Tensor:
        """A view of batch `number`, from its crops, or from whole pictures and what is to be cut of them."""
        count, channels = pixels.shape[:2]
        size, settings = self.plan[view].size, self.plan[view].settings
        generator = host_generator_for(self.seed, f"colors of view {view}", number)
        colors = draw_colors(settings, self.ranks.count * count, generator)[self._rows(count)]
        result = torch.empty(count, channels, size, size, dtype=self.mean.dtype, device=pixels.device)
        with on_one_thread(pixels.device), torch.autocast(pixels.device.type, enabled=False):
            for rows in chunks(pixels, size):
                images = pixels[rows]
                if boxes is not None and flips is not None:
                    images = cut_batch(images, boxes[rows], flips[rows], size)
                self._finish(images, colors[rows], result[rows])
        return result

    def _finish(self, crops: Tensor, colors: ColorDraws, result: Tensor) -> None:
        """Colors and normalizes crops, bytes or floats in [0, 255], into `result`."""
        if not colors.any():
            result.copy_(crops).sub_(255 * self.mean).div_(255 * self.std)
            return
        images = color(result.copy_(crops).div_(255), colors)
        torch.sub(images, self.mean, out=result).div_(self.std)


def chunks(pixels: Tensor, size: int) -> Iterator[slice]:
    """Rows to work on at a time: a CPU waits for memory where a batch is larger than its cache."""
    count = len(pixels)
    if pixels.device.type == "cpu":
        count = max(1, CHUNK // (pixels.shape[1] * max(size**2, pixels.shape[-2] * pixels.shape[-1])))
    return (slice(start, start + count) for start in range(0, len(pixels), count))


@contextmanager
def on_one_thread(device: torch.device) -> Iterator[None]:
    """On a CPU, to start threads takes longer than most operations on a chunk."""
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or not torch.backends.openmp.is_available():
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def plain_view(pixels: Tensor, size: int, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 images `(batch, channels, side, side)` as floats `(batch, channels, size, size)`: scaled and normalized."""
    images = pixels.float().div(255)
    if images.shape[-1] != size:
        images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
    return normalize(images, mean, std)


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return (images - mean) / std  # the encoder decides the memory format
