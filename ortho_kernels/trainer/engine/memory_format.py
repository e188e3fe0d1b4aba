"""How weights and the pixels of a batch lie in memory."""

from typing import Any

import torch
from torch import Tensor, nn

REGISTER = 16  # floats of the largest vector register


def apply_memory_format(encoder: nn.Module, channels_last: bool, sharded: bool) -> None:
    """Makes the encoder compute in the memory format that `memory_format` returns.

    Activations follow the weights, or the images where FSDP is to share the weights out: it takes contiguous ones alone.
    """
    layout = memory_format(encoder, channels_last)
    encoder.to(memory_format=torch.contiguous_format if sharded else layout)
    if sharded and layout == torch.channels_last:
        encoder.register_forward_pre_hook(_lay_images)


def memory_format(module: nn.Module, channels_last: bool) -> torch.memory_format:
    """Channels last, if that is asked for and safe.

    oneDNN (torch 2.14) overwrites a CPU's heap in one gradient: that of the weight of a strided 1 x 1 convolution whose
    channels lie last and are fewer than a vector register holds, 8 with AVX2, 16 with AVX-512. The shortcuts of narrow
    ResNets are such; large pictures crash them.
    """
    endangered = any(
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and layer.stride != (1, 1)
        and layer.in_channels < REGISTER
        for layer in module.modules()
    )
    return torch.channels_last if channels_last and not endangered else torch.contiguous_format


def _lay_images(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """A copy: images of one channel count as channels last already, whatever their strides mean to convolutions."""
    images: Tensor = inputs[0]
    return (torch.empty_like(images, memory_format=torch.channels_last).copy_(images), *inputs[1:])
