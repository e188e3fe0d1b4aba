"""How the pixels of a batch lie in memory."""

import torch
from torch import nn


def memory_format(module: nn.Module, channels_last: bool) -> torch.memory_format:
    """Channels last, if that is asked for and safe.

    On CPUs without AVX-512, oneDNN (torch 2.14) overwrites the heap in the backward of a strided 1 x 1 convolution of
    fewer than 8 channels that lie last: the shortcuts of a ResNet narrower than any that is trained in earnest.
    """
    endangered = any(
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and layer.stride != (1, 1)
        and layer.in_channels < 8
        for layer in module.modules()
    )
    return torch.channels_last if channels_last and not endangered else torch.contiguous_format
