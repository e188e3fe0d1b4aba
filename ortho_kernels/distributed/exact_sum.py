"""Numbers of which each is known to one rank: one all-reduce gives them to all ranks, exactly.

The sum goes over their bytes, as int32. Where one rank holds a number and the others hold zero bytes, no digit carries into
another: the sum has the bits of that number, in every dtype, also of NaN and -0.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..weight_views import gradient_slots


class ZerosToSum:
    """Tensors of zeros in one buffer. Each rank writes what is its own, then `sum_` gives all to all.

    Args:
        like: tensors of any dtypes on one device; the shapes and dtypes are the same on all ranks. Of each, a tensor like
            its gradient is made (`new_gradient`).

    Attributes:
        tensors: one for each.
    """

    def __init__(self, like: Sequence[Tensor], device: torch.device) -> None:
        slots = gradient_slots(like)
        self._buffer = torch.zeros(slots.nbytes, dtype=torch.uint8, device=device)  # a multiple of 4 bytes
        self.tensors = slots.of(self._buffer)

    def sum_(self, group: Any) -> list[Tensor]:
        """The tensors, with the numbers of all ranks: a collective."""
        dist.all_reduce(self._buffer.view(torch.int32), group=group)
        return self.tensors


def exact_sum(tensors: Sequence[Tensor], group: Any) -> list[Tensor]:
    """New tensors, the sums over all ranks of a group: a collective.

    Of each number, one rank holds its bits, and the others hold +0.0 or 0.
    """
    zeros = ZerosToSum(tensors, tensors[0].device)
    with torch.no_grad():
        for own, given in zip(zeros.tensors, tensors, strict=True):
            own.copy_(given)
    return zeros.sum_(group)
