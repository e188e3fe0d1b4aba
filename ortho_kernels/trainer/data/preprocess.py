"""From a PIL picture to what a run's encoder was evaluated on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .crops import cut_batch
from .decoding import pixels_of
from .views import Views, normalize, plain_view


@dataclass(frozen=True)
class Preprocess:
    """A transform for torchvision's datasets: a PIL picture of any mode and size to float32 `(channels, size, size)`.

    The picture is scaled and center-cropped to the side of the run's pictures, then scaled to the encoder's size. It is
    normalized by the statistics of the training set. `encoder(preprocess(picture)[None])` gives its features.

    For pictures as `PIL.Image.open` gives them, these are the run's own. A JPEG that is at least twice too large is
    decoded at a fraction of its size, which needs the open file. After `convert` or `load` small differences remain.

    Raises TypeError for what is no PIL picture.
    """

    channels: int  # 1: gray; 3: RGB
    decode_size: int  # side of the run's pictures, in pixels
    size: int  # side of what the encoder takes
    mean: tuple[float, ...]  # of each channel, of pixels in [0, 1]
    std: tuple[float, ...]

    @classmethod
    def of(cls, views: Views) -> "Preprocess":
        """What `views.plain` does, and the decoding before it."""
        mean, std = (tuple(values.flatten().tolist()) for values in (views.mean, views.std))
        return cls(len(mean), views.decode_size, views.size, mean, std)

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> "Preprocess":
        """From what `dataclasses.asdict` gave, and a file has kept."""
        return cls(**options | {"mean": tuple(options["mean"]), "std": tuple(options["std"])})

    @torch.no_grad()
    def __call__(self, picture: Image.Image) -> Tensor:
        if not isinstance(picture, Image.Image):
            raise TypeError(
                f"Preprocess takes a PIL picture, as PIL.Image.open gives it; got {type(picture).__name__}."
            )
        return self.view(pixels_of(picture, self.decode_size, self.channels)[None])[0]

    def view(self, pixels: Tensor) -> Tensor:
        """uint8 pictures `(batch, channels, side, side)` as float32 `(batch, channels, size, size)`, on their device."""
        return plain_view(pixels, self.size, *self._statistics(pixels.device))

    def crops(self, pixels: Tensor, boxes: np.ndarray, flips: np.ndarray) -> Tensor:
        """As `view`, of each picture a part: boxes `(batch, 4)` of top, left, height and width in pixels, and bool
        `(batch,)` for those that are mirrored."""
        images = cut_batch(pixels, boxes, flips, self.size).div_(255)
        return normalize(images, *self._statistics(pixels.device))

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=device)[:, None, None] for values in (self.mean, self.std)
        )
        return mean, std
