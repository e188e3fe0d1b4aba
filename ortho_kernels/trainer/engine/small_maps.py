"""Strided convolutions of maps that are smaller than their stride, in bfloat16 on a CPU."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import TrainerError


def refuse_small_maps(network: nn.Module) -> None:
    """Makes a training step in bfloat16 raise `TrainerError`, by name, where oneDNN would give a wrong gradient.

    With AMX (torch 2.14) the gradient of those entries of the kernel that no pixel meets is what the memory held, not zero.
    Seen where the map is smaller than the stride: the last stage of a ResNet whose crops have 4 pixels.
    """
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d) and max(layer.stride) > 1 and max(layer.kernel_size) > 1:
            layer.register_forward_pre_hook(_Guard(name, layer.stride))


@dataclass(frozen=True)
class _Guard:
    name: str
    stride: Sequence[int]

    def __call__(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        images = inputs[0]
        size = images.shape[-2:]
        if images.device.type != "cpu" or all(pixels >= step for pixels, step in zip(size, self.stride, strict=True)):
            return
        if torch.is_grad_enabled() and torch.is_autocast_enabled("cpu"):
            pixels, stride = (" x ".join(map(str, numbers)) for numbers in (size, self.stride))
            raise TrainerError(
                f"{self.name} strides by {stride} over a map of {pixels} pixels: torch gives wrong gradients for that in "
                "bfloat16 on a CPU. Take trainer.precision=32-true, or larger crops."
            )
