"""The features of an encoder, decoded pictures to one table."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ortho_kernels.spectra.forward_passes import evaluation_mode

from ..data import Images
from ..errors import TrainerError
from .progress_lines import with_progress

RAW_SIZE = 32  # side, in pixels, of what kNN on raw pixels sees
View = Callable[[Tensor], Tensor]  # uint8 pictures (batch, channels, side, side) to what the encoder takes


class Extracted(NamedTuple):
    """Of the pictures that can be decoded; the others are left out."""

    features: Tensor
    labels: Tensor
    raw_pixels: Tensor  # see `raw_pixels`; (images, 0) where nobody asked for them


@torch.no_grad()
def extract(
    encoder: nn.Module,
    view: View,
    images: Images,
    batch_size: int,
    raw: bool = False,
    progress: str | None = None,
) -> Extracted:
    """Features, float32 on the CPU, with the encoder in evaluation mode; with `raw` the pixels of the same pictures.

    `progress` labels a bar. Raises TrainerError where fewer than two pictures can be decoded.
    """
    device = next(encoder.parameters()).device
    tables = []
    with evaluation_mode(encoder):
        for pixels, labels in with_progress(readable(images, batch_size), -(-len(images) // batch_size), progress):
            features = encoder(view(pixels.to(device))).float().cpu()
            tables.append((features, labels, raw_pixels(pixels) if raw else features[:, :0]))
    count = sum(len(labels) for _, labels, _ in tables)
    if count < 2:
        raise TrainerError(
            f"Evaluation drew {len(images)} pictures, and {count or 'none'} of them can be decoded, where a score needs 2. "
            "Replace broken files, or draw more pictures by train_images and test_images. (A run that trains takes "
            "evaluation.train_images and evaluation.test_images, and then goes on by resume=auto.)"
        )
    return Extracted(*map(torch.cat, zip(*tables, strict=True)))


def raw_pixels(pixels: Tensor) -> Tensor:
    """The pictures `(batch, channels, height, width)` as vectors `(batch, pixels)`, large ones shrunk to 32 x 32."""
    small = pixels.float()
    if small.shape[-1] > RAW_SIZE:
        small = F.interpolate(small, (RAW_SIZE, RAW_SIZE), mode="bilinear", antialias=True)
    return small.flatten(1)


def readable(images: Images, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The pictures that can be decoded, with their labels, a batch at a time."""
    for indices in torch.arange(len(images)).split(batch_size):
        pixels, readable = images.read(indices)
        if len(pixels):
            yield pixels, images.labels[indices[readable]]
