"""The random views of a batch that a method is trained on, as each data set's papers draw them."""

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed.processes import ALONE, Ranks
from ..errors import TrainerError
from ..randomness import generator_for, host_generator_for
from . import transforms
from .transforms import Draw

KINDS = ("two", "asymmetric", "multicrop")


@dataclass
class PairSettings:
    """Where the two large views are drawn differently (BYOL, Grill et al. 2020, table 6): [first, second]."""

    blur: list[float] = field(default_factory=lambda: [1.0, 0.1])
    solarize: list[float] = field(default_factory=lambda: [0.0, 0.2])


@dataclass
class LocalSettings:
    """The small views of multi-crop (SwAV, Caron et al. 2020; DINO, Caron et al. 2021)."""

    count: int = 6
    size: int | None = None  # pixels; 3/7 of the large views' by default, as 96 is of 224
    min_area: float = 0.05
    max_area: float = 0.14
    blur: float = 0.5
    solarize: float = 0.0


@dataclass
class ViewSettings:
    """How a view is drawn. Probabilities, and strengths as torchvision's ColorJitter takes them."""

    min_area: float = 0.2  # a crop covers between this share of the image ...
    max_area: float = 1.0  # ... and this
    max_ratio: float = 4 / 3  # the longer over the shorter side of a crop, at most
    flip: float = 0.5  # probabilities ...
    jitter: float = 0.8
    grey: float = 0.2
    blur: float = 0.5
    solarize: float = 0.0
    brightness: float = 0.4  # strengths of the jitter: factors from 1 - x to 1 + x
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1  # in turns of the colour wheel, either way
    blur_sigma: float = 2.0  # pixels, at most
    asymmetric: PairSettings = field(default_factory=PairSettings)  # for method.views=asymmetric and multicrop
    local: LocalSettings = field(default_factory=LocalSettings)  # for method.views=multicrop


@dataclass(frozen=True)
class View:
    """One view of a batch: its side in pixels, and how it is drawn."""

    size: int
    settings: ViewSettings


def plan_views(kind: str, settings: ViewSettings, size: int) -> list[View]:
    """The views of a kind: `two` alike, `asymmetric` (the second drawn otherwise), `multicrop` (and several small)."""
    if kind not in KINDS:
        raise TrainerError(f"method.views must be one of {', '.join(KINDS)}; got {kind}.")
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
        images = transforms.colour_jitter(images, s.brightness, s.contrast, s.saturation, s.hue, s.jitter, draw)
        images = transforms.grey(images, s.grey, draw)
        images = transforms.blur(images, s.blur, s.blur_sigma, draw)
        images = transforms.solarize(images, s.solarize, draw)
        return normalized(images, self.mean, self.std)


def plain_view(pixels: Tensor, size: int, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 images `(batch, channels, side, side)` as floats `(batch, channels, size, size)`: scaled and normalized."""
    images = pixels.float().div(255)
    if images.shape[-1] != size:
        images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
    return normalized(images, mean, std)


def normalized(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return (images - mean) / std  # the encoder decides the memory format
