"""The features of an encoder, decoded pictures to one table."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import Images
from ..errors import TrainerError

RAW_SIZE = 32  # side, in pixels, of what kNN on raw pixels sees
View = Callable[[Tensor], Tensor]  # uint8 pictures (batch, channels, side, side) to what the encoder takes


class Extracted(NamedTuple):
    """Of the pictures that can be decoded; the others are left out."""

    features: Tensor
    raw_pixels: Tensor  # see `raw_pixels`
    labels: Tensor


@torch.no_grad()
def extract(encoder: nn.Module, view: View, images: Images, batch_size: int) -> Extracted:
    """What is needed of whole images, decoded once, with the encoder in evaluation mode."""
    device = next(encoder.parameters()).device
    training = encoder.training
    encoder.eval()
    batches = [
        Extracted(encoder(view(pixels.to(device))).float().cpu(), raw_pixels(pixels), labels)
        for pixels, labels in readable(images, batch_size)
    ]
    encoder.train(training)
    count = sum(len(batch.labels) for batch in batches)
    if count < 2:
        raise TrainerError(
            f"Evaluation drew {len(images)} pictures, and {count or 'none'} of them can be decoded, where a score needs 2. "
            "Replace broken files, or raise evaluation.train_images and evaluation.test_images; then resume=auto."
        )
    return Extracted(*map(torch.cat, zip(*batches, strict=True)))


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
