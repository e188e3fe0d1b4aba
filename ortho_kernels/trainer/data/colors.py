"""Random colors and blur of a batch: jitter, gray, blur, solarize, each picture by its own draws.

What is drawn is drawn on the host, so it knows how many pictures a change takes, and no device is waited for.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..host_copies import to_device
from .view_settings import ViewSettings

LUMA = (0.299, 0.587, 0.114)
LEAST_SIGMA = 0.1  # of the blur, in pixels
REACH = 3.0  # of the blur, in standard deviations


@dataclass(frozen=True)
class ColorDraws:
    """What is drawn of a view's colors; each array has a row for each picture."""

    jittered: np.ndarray  # bool, as all that end in -ed
    adjustments: np.ndarray  # (pictures, 4): factors of brightness, contrast and saturation; turns of the hue
    grayed: np.ndarray
    blurred: np.ndarray
    sigma: np.ndarray  # pixels
    solarized: np.ndarray

    def any(self) -> bool:
        """Whether there is something to do."""
        return bool((self.jittered | self.grayed | self.blurred | self.solarized).any())

    def __getitem__(self, rows: slice) -> "ColorDraws":
        return ColorDraws(*(getattr(self, each.name)[rows] for each in fields(self)))


def draw_colors(settings: ViewSettings, count: int, generator: np.random.Generator) -> ColorDraws:
    """Of one view of `count` pictures."""
    s = settings
    uniform = generator.random((9, count), dtype=np.float32)
    chosen = uniform[:4] < np.array([[s.jitter], [s.gray], [s.blur], [s.solarize]])
    spread = np.array([[s.brightness], [s.contrast], [s.saturation], [s.hue]], dtype=np.float32)
    amounts = spread * (2 * uniform[4:8] - 1)
    return ColorDraws(
        jittered=chosen[0],
        adjustments=(amounts + np.array([[1], [1], [1], [0]], dtype=np.float32)).T,
        grayed=chosen[1],
        blurred=chosen[2],
        sigma=LEAST_SIGMA + max(0.0, s.blur_sigma - LEAST_SIGMA) * uniform[8],
        solarized=chosen[3],
    )


def color(images: Tensor, draws: ColorDraws) -> Tensor:
    """The images, floats `(images, channels, height, width)` in [0, 1], with the colors drawn for them.

    May change `images`. Those of one channel have but brightness, contrast, blur and solarization.
    """

    def jittered(chosen: Tensor, rows: np.ndarray) -> Tensor:
        drawn = to_device(draws.adjustments[rows], images.device)[..., None, None, None]
        return color_jitter(chosen, *drawn.unbind(1))

    images = _change(images, draws.jittered, jittered)
    if images.shape[1] == 3:
        images = _change(images, draws.grayed, lambda chosen, _: chosen.copy_(luma(chosen)))
    images = _change(images, draws.blurred, lambda chosen, rows: blur(chosen, draws.sigma[rows]))
    return _change(images, draws.solarized, lambda chosen, _: torch.where(chosen >= 0.5, 1 - chosen, chosen))


def _change(images: Tensor, chosen: np.ndarray, change: Callable[[Tensor, np.ndarray], Tensor]) -> Tensor:
    """Changes the chosen images alone; `change` gets them, and their rows in the draws."""
    rows = np.flatnonzero(chosen)
    if len(rows) == 0:
        return images
    if len(rows) == len(images):
        return change(images, rows)
    places = to_device(rows, images.device)
    return images.index_copy_(0, places, change(images.index_select(0, places), rows))


def color_jitter(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """torchvision's adjustments in this order, by amounts `(images, 1, 1, 1)`; changes `images`.

    Gray images have but the first two.
    """
    images.mul_(brightness).clamp_(max=1)
    mean = luma(images.mean((2, 3), keepdim=True))
    images.mul_(contrast).add_(mean * (1 - contrast)).clamp_(0, 1)
    if images.shape[1] != 3:
        return images
    tone = luma(images).mul_(1 - saturation)
    return shift_hue(images.mul_(saturation).add_(tone).clamp_(0, 1), hue)


def shift_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Moves the hue (of HSV) of every image by its share of a full turn; value and saturation stay.

    Comparisons give floats here: on a CPU, operations on bool are several times slower.
    """
    red, green, blue = images.split(1, dim=1)
    value, middle = torch.maximum(green, blue), torch.minimum(green, blue)
    least = middle
    middle, value = torch.minimum(red, value), torch.maximum(red, value)
    chroma = value - torch.minimum(middle, least)
    # The hue is |(middle - least) / (6 chroma) - side|. `side` depends on the order of the colors: 0 where red is
    # brightest, then green; 1 where red is, then blue; 1/3 where green is; 2/3 where blue is.
    is_bluer = green.clone().lt_(blue)
    is_not_red = red.clone().lt_(torch.maximum(green, blue))
    side = torch.addcmul(is_bluer, is_not_red, torch.rsub(is_bluer, 1 / 3, alpha=2))
    hue = (middle - least).div_(chroma.clamp(min=1e-12).mul_(6)).sub_(side).abs_().add_(turns)
    offsets = torch.arange(3, -2, -2, dtype=images.dtype, device=images.device).view(1, 3, 1, 1) / 6
    distance = hue + offsets  # from where a channel is darkest, in turns
    distance.sub_(distance.round()).abs_()
    return torch.sub(value, distance.mul_(-6).add_(2).clamp_(0, 1).mul_(chroma), out=distance)


def blur(images: Tensor, sigmas: np.ndarray) -> Tensor:
    """A Gaussian of its own width for every image, in two passes of weighted shifts."""
    radius = min(math.ceil(REACH * sigmas.max()), images.shape[-1] - 1, images.shape[-2] - 1)
    taps, sigmas = np.arange(-radius, radius + 1), sigmas[:, None]
    # What lies beyond an image's own reach is cut off, whichever images are beside it.
    weights = np.exp(-0.5 * (taps / sigmas) ** 2) * (np.abs(taps) <= np.ceil(REACH * sigmas))
    weights /= weights.sum(1, keepdims=True)
    on_device = to_device(weights.T.astype(np.float32), images.device)[..., None, None, None]
    for axis in (2, 3):
        images = _shifted_sum(images, on_device, radius, axis)
    return images


def _shifted_sum(images: Tensor, weights: Tensor, radius: int, axis: int) -> Tensor:
    margin = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
    padded = F.pad(images, margin, mode="replicate")
    length = images.shape[axis]
    total = weights[0] * padded.narrow(axis, 0, length)
    for tap in range(1, 2 * radius + 1):
        total.addcmul_(weights[tap], padded.narrow(axis, tap, length))
    return total


def luma(images: Tensor) -> Tensor:
    """The brightness of every pixel, as one channel."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    red, green, blue = images.split(1, dim=1)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])
