"""The random views of a batch that a method is trained on, as each data set's papers draw them."""

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed.processes import ALONE, Ranks
from ..errors import TrainerError
from ..options import at_least, between, more_than, option
from ..randomness import generator_for, host_generator_for
from . import transforms
from .transforms import Draw


@dataclass
class PairSettings:
    """Where the two large views are drawn differently (BYOL, Grill et al. 2020, table 6): [first, second]."""

    blur: list[float] = option([1.0, 0.1], "probabilities of a blur", between(0, 1))
    solarize: list[float] = option([0.0, 0.2], "probabilities of a solarization", between(0, 1))


@dataclass
class LocalSettings:
    """The small views of multi-crop (SwAV, Caron et al. 2020; DINO, Caron et al. 2021)."""

    count: int = option(6, "number of small views", between(0, 100))
    size: int | None = option(None, "their side in pixels; by default 3/7 of the large views'", at_least(1))
    min_area: float = option(0.05, "least share of the picture that a small view covers", more_than(0, at_most=1))
    max_area: float = option(0.14, "largest share of the picture that a small view covers", more_than(0, at_most=1))
    blur: float = option(0.5, "probability of a blur", between(0, 1))
    solarize: float = option(0.0, "probability of a solarization", between(0, 1))


@dataclass
class ViewSettings:
    """How a view is drawn. Probabilities, and strengths as torchvision's ColorJitter takes them."""

    min_area: float = option(0.2, "least share of the picture that a crop covers", more_than(0, at_most=1))
    max_area: float = option(1.0, "largest share of the picture that a crop covers", more_than(0, at_most=1))
    max_ratio: float = option(4 / 3, "largest ratio of a crop's longer to its shorter side", between(1, 100))
    flip: float = option(0.5, "probability of a horizontal flip", between(0, 1))
    jitter: float = option(0.8, "probability of color jitter", between(0, 1))
    gray: float = option(0.2, "probability of a gray view", between(0, 1))
    blur: float = option(0.5, "probability of a blur", between(0, 1))
    solarize: float = option(0.0, "probability of a solarization", between(0, 1))
    brightness: float = option(0.4, "strength x of the jitter: a factor from 1 - x to 1 + x", between(0, 1))
    contrast: float = option(0.4, "x of the contrast's factor, 1 - x to 1 + x", between(0, 1))
    saturation: float = option(0.2, "x of the saturation's factor, 1 - x to 1 + x", between(0, 1))
    hue: float = option(0.1, "largest shift of the hue either way, in turns of the color wheel", between(0, 0.5))
    blur_sigma: float = option(2.0, "largest standard deviation of the blur in pixels", between(0.1, 100))
    asymmetric: PairSettings = field(default_factory=PairSettings)  # for method.views=asymmetric and multicrop
    local: LocalSettings = field(default_factory=LocalSettings)  # for method.views=multicrop


@dataclass(frozen=True)
class View:
    """One view of a batch: its side in pixels, and how it is drawn."""

    size: int
    settings: ViewSettings


def plan_views(kind: str, settings: ViewSettings, size: int) -> list[View]:
    """The views of a kind: `two` alike, `asymmetric` (the second drawn otherwise), `multicrop` (and several small)."""
    for name, areas in (("data.views", settings), ("data.views.local", settings.local)):
        if areas.min_area > areas.max_area:
            raise TrainerError(f"{name}: min_area={areas.min_area:g} is more than max_area={areas.max_area:g}.")
    if kind == "two":
        return [View(size, settings)] * 2
    pair = settings.asymmetric
    if len(pair.blur) != 2 or len(pair.solarize) != 2:
        raise TrainerError("data.views.asymmetric: blur and solarize take two numbers, [first, second].")
    large = [
        View(size, replace(settings, blur=blur, solarize=solarize))
        for blur, solarize in zip(pair.blur, pair.solarize, strict=True)
    ]
    if kind == "asymmetric":
        return large
    local = settings.local
    small = replace(
        settings, min_area=local.min_area, max_area=local.max_area, blur=local.blur, solarize=local.solarize
    )
    return large + [View(local.size or round(size * 3 / 7), small)] * local.count


class Views(nn.Module):
    """The views of uint8 images `(batch, channels, height, width)`, normalized; a function of the batch's number.

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
        self.decode_size = sample.shape[-1]  # side of the pictures that the data source gives
        self.seed = seed
        self.ranks = ranks
        # The statistics of the training set are part of the data, not of what is learned.
        pixels = sample.float().div(255)
        self.register_buffer("mean", pixels.mean((0, 2, 3))[:, None, None], persistent=False)
        self.register_buffer("std", pixels.std((0, 2, 3)).clamp(min=1e-3)[:, None, None], persistent=False)

    @torch.no_grad()
    def forward(self, pixels: Tensor, number: int) -> list[Tensor]:
        draw = Draw(
            len(pixels),
            pixels.device,
            generator_for(pixels.device, self.seed, "views", number),
            host_generator_for(self.seed, "chosen images of views", number),
            self.ranks,
        )
        images = pixels.float().div(255)
        return [self._view(images, view, draw) for view in self.plan]

    def plain(self, pixels: Tensor) -> Tensor:
        """The images as evaluation sees them: whole, scaled to the size of a large view."""
        return plain_view(pixels, self.size, self.mean, self.std)

    def _view(self, images: Tensor, view: View, draw: Draw) -> Tensor:
        s = view.settings
        images = transforms.resized_crop(images, view.size, (s.min_area, s.max_area), s.max_ratio, s.flip, draw)
        images = transforms.color_jitter(images, s.brightness, s.contrast, s.saturation, s.hue, s.jitter, draw)
        images = transforms.gray(images, s.gray, draw)
        images = transforms.blur(images, s.blur, s.blur_sigma, draw)
        images = transforms.solarize(images, s.solarize, draw)
        return normalize(images, self.mean, self.std)


def plain_view(pixels: Tensor, size: int, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 images `(batch, channels, side, side)` as floats `(batch, channels, size, size)`: scaled and normalized."""
    images = pixels.float().div(255)
    if images.shape[-1] != size:
        images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
    return normalize(images, mean, std)


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return (images - mean) / std  # the encoder decides the memory format
