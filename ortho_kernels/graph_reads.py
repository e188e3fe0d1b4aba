"""What a CUDA graph reads is kept for good: a graph keeps no tensor alive, and nobody says when it is gone."""

from __future__ import annotations

import torch
from torch import Tensor

_read: dict[int, Tensor] = {}


def is_captured(device: torch.device) -> bool:
    """Whether what is launched on the device now becomes part of a CUDA graph."""
    return device.type == "cuda" and not torch.compiler.is_compiling() and torch.cuda.is_current_stream_capturing()


def read_by_graphs(tensor: Tensor) -> Tensor:
    """The tensor, which a graph that is captured now may read for ever; for what a cache may drop, or nobody else holds."""
    if is_captured(tensor.device):
        _read[id(tensor)] = tensor
    return tensor
