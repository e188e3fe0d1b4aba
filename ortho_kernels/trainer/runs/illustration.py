"""Test pictures that show what a method has learned to draw, for the report: `illustration.png` of a run."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..data import Images
from ..data.views import Views
from ..errors import writing
from ..methods import Method
from ..probes.features import readable
from ..randomness import generator_for

COUNT = 8  # pictures of a row


@torch.no_grad()
def write_illustration(file: Path, method: Method, views: Views, images: Images, seed: int) -> None:
    """A PNG whose first row is pictures, drawn by the seed; the others are what the method shows of them, if anything."""
    chosen = images.subset(COUNT, generator_for("cpu", seed, "pictures of the illustration"))
    pixels, _ = next(iter(readable(chosen, COUNT)))
    was_training = method.training
    shown = views.plain(pixels.to(views.mean.device))
    rows = method.eval().illustrate(shown)
    method.train(was_training)
    if rows:
        strip = torch.stack([shown, *rows]) * views.std + views.mean
        with writing(file) as path:
            as_image(strip).save(path, "PNG")


def as_image(strip: Tensor) -> Image.Image:
    """Images `(rows, columns, channels, height, width)` in [0, 1], side by side."""
    rows, columns, channels, height, width = strip.shape
    bytes_of = strip.mul(255).round().clamp(0, 255).to("cpu", torch.uint8)
    pixels = bytes_of.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels).numpy()
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
