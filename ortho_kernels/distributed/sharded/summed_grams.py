"""Sums of Grams over the ranks: the residuals of matrices that are cut along their depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .plan import triangle


class SummedGrams:
    """The lower triangles of some matrices' residuals, row by row, packed one after the other.

    Args:
        orders: of the matrices.
        parts: the places among them of those of which this rank has a part, in the order of its parts.
        dtype, device: of the triangles.
    """

    def __init__(self, orders: Sequence[int], parts: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self._dtype, self._device = dtype, device
        begins, count = [], 0
        for order in orders:
            begins.append(count)
            count += triangle(order)
        self._count, self._sizes = count, [triangle(order) for order in orders]
        diagonals = [begin + _diagonal(order) for begin, order in zip(begins, orders, strict=True)]
        self._diagonal = torch.cat(diagonals).to(device)
        self._diagonal_sizes = list(orders)
        own = [torch.arange(begins[place], begins[place] + self._sizes[place]) for place in parts]
        own_diagonals = [diagonals[place] for place in parts]
        self._own = torch.cat(own).to(device) if own else None
        self._own_diagonal = torch.cat(own_diagonals).to(device) if own else None

    def residuals(self, own: Tensor | None, group: Any) -> Tensor:
        """R of all matrices: a collective.

        Args:
            own: (Gram - I) of each part that is here, packed likewise; None if none is.
        """
        total = torch.zeros(self._count, dtype=self._dtype, device=self._device)
        if own is not None:
            total[self._own] = own.to(self._dtype)
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
        """K of the parts that are here, R with these factors on and off the diagonal: the gradient is 4 K W."""
        K = R * off_diagonal
        K[self._diagonal] = diagonal * R[self._diagonal]
        return K[self._own]


def _diagonal(order: int) -> Tensor:
    rows = torch.arange(order)
    return rows * (rows + 3) // 2
