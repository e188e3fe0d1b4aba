"""Sums of Grams over the ranks: the residuals of matrices that are cut along their depth."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ...weight_views import triangle


class SummedGrams:
    """The lower triangles of some matrices' residuals, row by row, packed one after the other.

    Args:
        orders: of the matrices.
        parts: the places among them of those of which this rank has a part, in the order of its parts.
        dtype, device: of the triangles.
    """

    def __init__(self, orders: Sequence[int], parts: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self._dtype, self._device = dtype, device
        self._sizes = [triangle(order) for order in orders]
        self._count = sum(self._sizes)
        begins = list(accumulate(self._sizes, initial=0))
        diagonals = [begin + _diagonal(order) for begin, order in zip(begins, orders, strict=False)]
        self._diagonal = torch.cat(diagonals).to(device)
        self._diagonal_sizes = list(orders)
        self._own = [slice(begins[place], begins[place + 1]) for place in parts]
        self._own_sizes = [self._sizes[place] for place in parts]
        self._own_diagonal = torch.cat([diagonals[place] for place in parts]).to(device) if parts else None

    def residuals(self, own: Tensor | None, group: Any) -> Tensor:
        """R of all matrices: a collective.

        Args:
            own: (Gram - I) of each part that is here, packed likewise; None if none is.
        """
        total = torch.zeros(self._count, dtype=self._dtype, device=self._device)
        if own is not None:
            for place, part in zip(self._own, own.split(self._own_sizes), strict=True):
                total[place] = part
            total[self._own_diagonal] += 1  # each part's own identity
        dist.all_reduce(total, group=group)
        total[self._diagonal] -= 1
        return total

    def squares(self, R: Tensor, diagonal: float, off_diagonal: float) -> Tensor:
        """`diagonal * sum_i R_ii^2 + off_diagonal * sum_(i != j) R_ij^2` of each matrix."""
        on = torch.stack([part.square().sum() for part in R[self._diagonal].split(self._diagonal_sizes)])
        lower = torch.stack([part.square().sum() for part in R.split(self._sizes)])
        return diagonal * on + off_diagonal * 2 * (lower - on)

    def own_weighted(self, R: Tensor, diagonal: float, off_diagonal: float) -> Tensor:
        """K of the parts that are here, R with these factors on and off the diagonal: the gradient is 4 K W.

        R is overwritten.
        """
        on = diagonal * R[self._diagonal]
        K = R.mul_(off_diagonal).index_copy_(0, self._diagonal, on)
        return torch.cat([K[place] for place in self._own])


def _diagonal(order: int) -> Tensor:
    rows = torch.arange(order)
    return rows * (rows + 3) // 2
