"""Random transforms of a whole batch at once: every image has its own crop, flip, tone and blur.

The operations of the papers' PIL pipelines: random resized crop, flip, color jitter, gray, blur, solarize. A batch takes
a few dozen tensor operations, where PIL takes a dozen Python calls for every image.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..distributed.processes import ALONE, Ranks
from ..transfers import to_device

LUMA = (0.299, 0.587, 0.114)
LEAST_SIGMA = 0.1  # of the blur, in pixels


class Draw:
    """Random numbers, one for each image of a batch, shaped to broadcast over it.

    A rank draws for the images of all ranks and keeps its own part: several processes see what one would see.
    """

    def __init__(
        self,
        batch: int,
        device: torch.device,
        generator: torch.Generator,
        host_generator: np.random.Generator,
        ranks: Ranks = ALONE,
    ) -> None:
        self.batch, self.device, self.generator = batch, device, generator
        self.host_generator = host_generator
        self.ranks = ranks

    def uniform(self, low: float, high: float) -> Tensor:
        shape = (self.ranks.count * self.batch, 1, 1, 1)
        draws = torch.rand(shape, dtype=torch.float32, device=self.device, generator=self.generator)
        return draws[self.ranks.rank * self.batch :][: self.batch] * (high - low) + low

    def chance(self, probability: float) -> Tensor:
        return self.uniform(0.0, 1.0) < probability

    def choose(self, probability: float) -> Tensor:
        """Indices of the images that chance has chosen, drawn on the host: it must know how many they are."""
        draws = self.host_generator.random(self.ranks.count * self.batch)[self.ranks.rank * self.batch :][: self.batch]
        return to_device(np.flatnonzero(draws < probability), self.device)


def resized_crop(
    images: Tensor, size: int, area: tuple[float, float], max_ratio: float, flip: float, draw: Draw
) -> Tensor:
    """A random part of every image, between the two shares of its area, scaled to `size` and perhaps mirrored: one
    bilinear resampling."""
    share = draw.uniform(*area)
    ratio = draw.uniform(-1.0, 1.0).mul(math.log(max_ratio)).exp()
    width = (share * ratio).sqrt().clamp(max=1.0)
    height = (share / ratio).sqrt().clamp(max=1.0)
    left = draw.uniform(-1.0, 1.0) * (1 - width)
    top = draw.uniform(-1.0, 1.0) * (1 - height)
    mirrored = torch.where(draw.chance(flip), -width, width)
    zero = torch.zeros_like(width)
    affine = torch.cat([mirrored, zero, left, zero, height, top], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(affine, [len(images), images.shape[1], size, size], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def color_jitter(
    images: Tensor, brightness: float, contrast: float, saturation: float, hue: float, probability: float, draw: Draw
) -> Tensor:
    """Brightness, contrast, saturation and hue, in this order; gray images have but the first two."""
    toned = (images * draw.uniform(max(0.0, 1 - brightness), 1 + brightness)).clamp(0, 1)
    mean = _luma(toned).mean((2, 3), keepdim=True)
    toned = _blend(mean, toned, draw.uniform(max(0.0, 1 - contrast), 1 + contrast)).clamp(0, 1)
    if images.shape[1] == 3:
        toned = _blend(_luma(toned), toned, draw.uniform(max(0.0, 1 - saturation), 1 + saturation)).clamp(0, 1)
        if hue:
            toned = shift_hue(toned, draw.uniform(-hue, hue))
    return torch.where(draw.chance(probability), toned, images)


def shift_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Moves the hue (of HSV) of every image by its share of a full turn; value and saturation stay."""
    value, brightest = images.max(1, keepdim=True)
    chroma = value - images.amin(1, keepdim=True)
    red, green, blue = images.split(1, dim=1)
    candidates = torch.cat([green - blue, blue - red, red - green], dim=1).gather(1, brightest)
    sixth = 2.0 * brightest + candidates / chroma.clamp(min=1e-12)  # a position on the wheel of six sectors
    starts = torch.arange(5, 0, -2, dtype=images.dtype, device=images.device)  # of the three channels
    sector = sixth + 6.0 * turns + starts.view(1, 3, 1, 1)
    k = sector.remainder(6.0)
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


def gray(images: Tensor, probability: float, draw: Draw) -> Tensor:
    if images.shape[1] != 3:
        return images
    return torch.where(draw.chance(probability), _luma(images), images)


def blur(images: Tensor, probability: float, sigma: float, draw: Draw) -> Tensor:
    """A Gaussian of its own width, up to `sigma` pixels, for every image that is blurred: two passes of weighted shifts."""

    def blurred(chosen: Tensor, sigmas: Tensor) -> Tensor:
        radius = min(math.ceil(2.5 * sigma), chosen.shape[-1] - 1, chosen.shape[-2] - 1)
        taps = torch.arange(-radius, radius + 1, device=images.device)
        weights = torch.exp(-0.5 * (taps / sigmas) ** 2)  # (chosen, 1, 1, taps)
        weights = weights / weights.sum(-1, keepdim=True)
        for axis in (2, 3):
            chosen = _shifted_sum(chosen, weights, radius, axis)
        return chosen

    sigmas = draw.uniform(LEAST_SIGMA, max(sigma, LEAST_SIGMA))
    return _change_chosen(images, draw.choose(probability), blurred, sigmas)


def solarize(images: Tensor, probability: float, draw: Draw) -> Tensor:
    """What is brighter than one half is inverted."""
    if probability == 0:
        return images
    return torch.where(draw.chance(probability) & (images >= 0.5), 1 - images, images)


def _change_chosen(images: Tensor, chosen: Tensor, change: Callable[..., Tensor], amounts: Tensor) -> Tensor:
    """Applies `change` to the chosen images alone: worth it for what is expensive and rare."""
    if len(chosen) == 0:
        return images
    return images.index_copy(0, chosen, change(images[chosen], amounts[chosen]))


def _shifted_sum(images: Tensor, weights: Tensor, radius: int, axis: int) -> Tensor:
    margin = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
    padded = F.pad(images, margin, mode="replicate")
    length = images.shape[axis]
    total = weights[..., :1] * padded.narrow(axis, 0, length)
    for tap in range(1, 2 * radius + 1):
        total.addcmul_(weights[..., tap : tap + 1], padded.narrow(axis, tap, length))
    return total


def _luma(images: Tensor) -> Tensor:
    """The brightness of every pixel, as one channel."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    red, green, blue = images.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def _blend(start: Tensor, end: Tensor, amount: Tensor) -> Tensor:
    return start + amount * (end - start)
