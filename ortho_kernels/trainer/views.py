"""Random views of a batch of images, for the whole batch at once: every image has its own crop, flip, tone and blur."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .randomness import generator_for

LUMA = (0.299, 0.587, 0.114)


@dataclass
class ViewSettings:
    min_area: float = 0.2  # a crop covers between this share of the image and all of it
    max_ratio: float = 4 / 3  # the longer over the shorter side of a crop, at most
    flip: float = 0.5  # probabilities ...
    jitter: float = 0.8
    grey: float = 0.2
    blur: float = 0.5
    brightness: float = 0.4  # strengths of the jitter: factors from 1 - x to 1 + x
    contrast: float = 0.4
    saturation: float = 0.2


class Views(nn.Module):
    """Two views of uint8 images `(batch, channels, height, width)`, normalized; a function of the batch's number."""

    mean: Tensor
    std: Tensor

    def __init__(self, settings: ViewSettings, size: int, train_pixels: Tensor, seed: int) -> None:
        super().__init__()
        self.settings = settings
        self.size = size
        self.seed = seed
        # The statistics of the training set are part of the data, not of what is learned.
        sample = train_pixels[:10_000].float().div(255)
        self.register_buffer("mean", sample.mean((0, 2, 3))[:, None, None], persistent=False)
        self.register_buffer("std", sample.std((0, 2, 3)).clamp(min=1e-3)[:, None, None], persistent=False)

    @torch.no_grad()
    def forward(self, pixels: Tensor, number: int) -> list[Tensor]:
        generator = generator_for(pixels.device, self.seed, "views", number)
        images = pixels.float().div(255)
        return [self._view(images, generator) for _ in range(2)]

    def plain(self, pixels: Tensor) -> Tensor:
        """The images as evaluation sees them: whole, scaled to the size of a view."""
        images = pixels.float().div(255)
        if images.shape[-1] != self.size:
            images = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        return self._normalized(images)

    def _view(self, images: Tensor, generator: torch.Generator) -> Tensor:
        draw = _Draw(len(images), images.device, generator)
        view = resized_crop(images, self.size, self.settings, draw)
        view = jitter(view, self.settings, draw)
        view = blur(view, self.settings, draw)
        return self._normalized(view)

    def _normalized(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std  # the encoder's weights decide the memory format


class _Draw:
    """Random numbers, one for each image of a batch, shaped to broadcast over it."""

    def __init__(self, batch: int, device: torch.device, generator: torch.Generator) -> None:
        self.batch, self.device, self.generator = batch, device, generator

    def uniform(self, low: float, high: float) -> Tensor:
        draws = torch.rand(self.batch, 1, 1, 1, device=self.device, generator=self.generator)
        return draws * (high - low) + low

    def chance(self, probability: float) -> Tensor:
        return self.uniform(0.0, 1.0) < probability


def resized_crop(images: Tensor, size: int, settings: ViewSettings, draw: _Draw) -> Tensor:
    """A random part of every image, scaled to `size` and perhaps flipped, in one resampling."""
    area = draw.uniform(settings.min_area, 1.0)
    ratio = draw.uniform(-1.0, 1.0).mul(math.log(settings.max_ratio)).exp()
    width = (area * ratio).sqrt().clamp(max=1.0)
    height = (area / ratio).sqrt().clamp(max=1.0)
    left = draw.uniform(-1.0, 1.0) * (1 - width)
    top = draw.uniform(-1.0, 1.0) * (1 - height)
    mirrored = torch.where(draw.chance(settings.flip), -width, width)
    zero = torch.zeros_like(width)
    affine = torch.cat([mirrored, zero, left, zero, height, top], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(affine, [len(images), images.shape[1], size, size], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def jitter(images: Tensor, settings: ViewSettings, draw: _Draw) -> Tensor:
    """Brightness and contrast, and for coloured images saturation and, at times, no colour at all."""
    brightness = draw.uniform(1 - settings.brightness, 1 + settings.brightness)
    contrast = draw.uniform(1 - settings.contrast, 1 + settings.contrast)
    toned = images * brightness
    toned = _blend(toned.mean((1, 2, 3), keepdim=True), toned, contrast)
    if images.shape[1] == 3:
        toned = _blend(_grey(toned), toned, draw.uniform(1 - settings.saturation, 1 + settings.saturation))
    toned = torch.where(draw.chance(settings.jitter), toned, images)
    if images.shape[1] == 3:
        toned = torch.where(draw.chance(settings.grey), _grey(toned), toned)
    return toned.clamp(0, 1)


def blur(images: Tensor, settings: ViewSettings, draw: _Draw) -> Tensor:
    """A Gaussian of 3 x 3 pixels with its own width for every image: two passes of three weighted shifts."""
    if settings.blur == 0:
        return images
    sigma = draw.uniform(0.1, 1.0)
    side = torch.exp(-0.5 / sigma**2)
    side = torch.where(draw.chance(settings.blur), side / (1 + 2 * side), 0.0)
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    rows = (1 - 2 * side) * padded[..., 1:-1, :] + side * (padded[..., :-2, :] + padded[..., 2:, :])
    return (1 - 2 * side) * rows[..., 1:-1] + side * (rows[..., :-2] + rows[..., 2:])


def _grey(images: Tensor) -> Tensor:
    weights = images.new_tensor(LUMA)[:, None, None]
    return (images * weights).sum(1, keepdim=True).expand_as(images)


def _blend(start: Tensor, end: Tensor, amount: Tensor) -> Tensor:
    return start + amount * (end - start)
