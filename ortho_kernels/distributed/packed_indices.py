"""Where the values and vectors of some stand among those of all, which are packed one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

import torch
from torch import Tensor


def packed_indices(chosen: Sequence[int], sizes: Sequence[int], device: torch.device) -> Tensor:
    """The indices of what these have, out of all, whose sizes are given: int64, on the device."""
    ends = list(accumulate(sizes))
    with making_constants():
        ranges = [torch.arange(ends[index] - sizes[index], ends[index]) for index in chosen]
        return torch.cat([torch.zeros(0, dtype=torch.int64), *ranges]).to(device)


@contextmanager
def making_constants() -> Iterator[None]:
    """On the CPU first, whatever the default device is; and such that they can be trained with."""
    with torch.inference_mode(False), torch.device("cpu"):
        yield
