"""Products of matrices and float64 vectors, without a float64 copy of the matrix that leaves the cache."""

from __future__ import annotations

import torch
from torch import Tensor

ENTRIES_ON_CPU = 2**16  # half a MiB in float64: two to five times as fast as the matrix at once
_ENTRIES = 2**24  # on devices that wait for each launch


def block_entries(device: torch.device) -> int:
    """How many entries are converted at once."""
    return ENTRIES_ON_CPU if device.type == "cpu" else _ENTRIES


def double_product(W: Tensor, x: Tensor) -> Tensor:
    """W x in float64, of a matrix of any floating-point dtype, which is converted in blocks."""
    entries = block_entries(W.device)
    if W.numel() <= entries:
        return W.double() @ x
    if W.stride(0) >= W.stride(1):
        size = max(1, entries // W.shape[1])
        return torch.cat([block.double() @ x for block in W.split(size)])
    size = max(1, entries // W.shape[0])
    parts = zip(W.split(size, 1), x.split(size), strict=True)
    return torch.stack([block.double() @ part for block, part in parts]).sum(0)
