"""Random resized crops: which part of a picture a view shows, and that part at the view's size.

The boxes are those of torchvision's RandomResizedCrop. The resampling is that of its v2 `resized_crop` with antialias:
bilinear, and a wider triangle where a crop shrinks. A crop is cut by itself (`cut`) or for a batch at once (`cut_batch`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..host_copies import to_device
from .view_settings import View

TRIES = 10  # areas and ratios that are tried before the middle of the picture is taken


@dataclass(frozen=True)
class CropDraws:
    """What is drawn of crops, whatever the sizes of their pictures. Each array has a row for each crop."""

    areas: np.ndarray  # (crops, TRIES), shares of the picture
    ratios: np.ndarray  # (crops, TRIES), width over height
    max_ratios: np.ndarray  # (crops,)
    places: np.ndarray  # (crops, 2), of the top and the left edge, in [0, 1)
    flips: np.ndarray  # bool (crops,)

    def boxes(self, sizes: np.ndarray) -> np.ndarray:
        """The crops of pictures of these heights and widths `(crops, 2)`, in pixels: top, left, height, width."""
        areas = self.areas * sizes.prod(-1)[:, None]
        tried = np.rint(np.sqrt(np.stack([areas / self.ratios, areas * self.ratios], axis=-1)))  # (crops, TRIES, 2)
        fits = ((tried > 0) & (tried <= sizes[:, None])).all(-1)
        middle = np.minimum(sizes, np.rint(sizes[:, ::-1] * self.max_ratios[:, None]))
        chosen = np.where(
            fits.any(-1, keepdims=True), np.take_along_axis(tried, fits.argmax(-1)[:, None, None], 1)[:, 0], middle
        )
        drawn = np.floor(self.places * (sizes - chosen + 1))
        corners = np.where(fits.any(-1, keepdims=True), drawn, (sizes - chosen) // 2)
        return np.concatenate([corners, chosen], axis=1).astype(np.int64)

    def __getitem__(self, rows: slice) -> "CropDraws":
        return CropDraws(*(getattr(self, each.name)[rows] for each in fields(self)))


def draw_crops(plan: Sequence[View], count: int, generator: np.random.Generator) -> CropDraws:
    """Of `count` pictures. The crops of picture i are rows `i * len(plan)` to `(i + 1) * len(plan) - 1`."""
    settings = [view.settings for view in plan]
    least, most, ratio, flip = (
        np.tile([getattr(each, name) for each in settings], count)
        for name in ("min_area", "max_area", "max_ratio", "flip")
    )
    uniform = generator.random((count * len(plan), 2 * TRIES + 3))
    return CropDraws(
        areas=least[:, None] + (most - least)[:, None] * uniform[:, :TRIES],
        ratios=ratio[:, None] ** (2 * uniform[:, TRIES : 2 * TRIES] - 1),
        max_ratios=ratio,
        places=uniform[:, -3:-1],
        flips=uniform[:, -1] < flip,
    )


def cut(picture: Tensor, box: Sequence[int], flip: bool, target: Tensor) -> None:
    """Fills the uint8 `target` `(channels, size, size)` with the crop of the uint8 picture `(channels, height, width)`."""
    top, left, height, width = box
    part = picture[None, :, top : top + height, left : left + width]
    resized = F.interpolate(part, target.shape[-2:], mode="bilinear", antialias=True)[0]
    target.copy_(resized.flip(-1) if flip else resized)


def cut_batch(pictures: Tensor, boxes: np.ndarray, flips: np.ndarray, size: int) -> Tensor:
    """Of each picture `(pictures, channels, height, width)` one crop, in floats `(pictures, channels, size, size)`.

    Each picture has a matrix that combines its rows, and one that combines its columns. A flip reverses the latter.
    """
    height, width = pictures.shape[-2:]
    flipped = np.column_stack([np.zeros_like(flips), flips])
    drawn = np.concatenate([boxes, flipped], axis=1, dtype=np.float32).reshape(-1, 3, 2, 1, 1)
    start, length, flip = to_device(drawn, pictures.device).unbind(1)
    weights = _resampling(start, length, flip, max(height, width), size)
    down, across = weights[:, :1, :, :height], weights[:, 1:, :, :width]
    return down @ (pictures.float() @ across.mT)


def _resampling(start: Tensor, length: Tensor, flip: Tensor, pixels: int, size: int) -> Tensor:
    """The weights `(..., size, pixels)` with which lines of `pixels` become `size` pixels of their part.

    Each result is a mean under a triangle around its place, one pixel of the coarser of the two grids to each side.
    """
    step = length / size
    places = torch.arange(0.5, size, dtype=start.dtype, device=start.device)[:, None] * step
    places = start + torch.where(flip > 0, length - places, places)
    centers = torch.arange(0.5, pixels, dtype=start.dtype, device=start.device)
    weights = (1 - (centers - places).abs() / step.clamp(min=1)).clamp_(min=0)
    weights *= (centers > start) & (centers < start + length)
    return weights / weights.sum(-1, keepdim=True)


def reduction(boxes: np.ndarray, sizes: Sequence[int]) -> float:
    """By how much a picture may be reduced so that each of these crops still has as many pixels as its view."""
    return min(min(box[2:]) / size for box, size in zip(boxes.tolist(), sizes, strict=True))


def reduced(boxes: np.ndarray, whole: Sequence[int], smaller: Sequence[int]) -> np.ndarray:
    """The boxes of a picture of `whole` (height, width) in the same picture at a smaller size."""
    scale = np.array(smaller) / np.array(whole)
    start = np.rint(boxes[:, :2] * scale)
    end = np.maximum(np.rint((boxes[:, :2] + boxes[:, 2:]) * scale), start + 1)
    return np.concatenate([start, end - start], axis=1).astype(np.int64)
