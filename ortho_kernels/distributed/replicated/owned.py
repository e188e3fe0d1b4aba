"""The matrices that one rank computes, out of those of a call."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from ...options import SO, SRIP
from ...weight_views import WeightView, WeightViews, weight_views
from ..assignment import assign, matrix_cost
from ..packed_indices import packed_indices

T = TypeVar("T", Tensor, Tensor | None)


class Range(NamedTuple):
    """Matrices of a weight that lie one above the other: mostly all that it has."""

    weight: int
    first: int
    length: int


class Owned:
    """What one rank owns of these weights.

    A weight is owned whole, unless it holds several matrices (a batch of experts) and costs more than a rank's fair share:
    then it is cut into a range for each rank.

    Attributes:
        views: of what it owns.
        matrices: where the values that it owns stand among all; int64, on the weights' device.
        vectors: where the entries of its vectors stand among all, likewise.
        costs: of each rank, in the multiply-adds of `matrix_cost`.
    """

    def __init__(self, weights: list[Tensor], views: WeightViews, options: SO | SRIP, rank: int, ranks: int) -> None:
        costs = [_matrix_cost(options, view) for view in views.views]
        ranges = _ranges(views.groups, costs, ranks)
        costs = [own.length * costs[own.weight] for own in ranges]
        owners = assign(costs, ranks)
        self.costs = [sum(cost for cost, owner in zip(costs, owners, strict=True) if owner == r) for r in range(ranks)]
        self._owned = sorted(own for own, owner in zip(ranges, owners, strict=True) if owner == rank)
        self._rows = [view.rows for view in views.views]
        self._whole = [own.length == views.groups[own.weight] for own in self._owned]
        self.views = weight_views(self.of(weights), [own.length for own in self._owned])
        self.matrices, self.vectors = self._places(views, options.side)

    def of(self, tensors: Sequence[T]) -> list[T]:
        """Out of one tensor a weight (or None): those owned, of a weight that is cut the rows."""
        found = []
        for whole, (weight, first, length) in zip(self._whole, self._owned, strict=True):
            tensor, rows = tensors[weight], self._rows[weight]
            if tensor is not None and not whole:
                tensor = tensor[first * rows : (first + length) * rows]
            found.append(tensor)
        return found

    def vectors_of(self, start: Tensor) -> Tensor:
        """Out of all packed vectors, those owned."""
        return start.index_select(0, self.vectors).to(self.views.dtype)

    @torch.no_grad()
    def write(self, numbers: Sequence[Tensor], values: Tensor, ends: Tensor | None) -> None:
        """Writes what this rank has computed to the place that it has among all values, and all vectors."""
        numbers[0].index_copy_(0, self.matrices, values.to(numbers[0].dtype))
        if ends is not None:
            numbers[1].index_copy_(0, self.vectors, ends.to(numbers[1].dtype))

    def _places(self, views: WeightViews, side: str) -> tuple[Tensor, Tensor]:
        begins = list(accumulate(views.groups, initial=0))
        matrices = [begins[weight] + first + i for weight, first, length in self._owned for i in range(length)]
        ones = [1] * views.matrix_count
        of_values = packed_indices(matrices, ones, views.device)
        return of_values, packed_indices(matrices, views.orders(side), views.device)


def _ranges(groups: Sequence[int], costs: Sequence[float], ranks: int) -> list[Range]:
    """The ranges that are owned, from the matrices of each weight and what one of them costs."""
    fair = sum(count * cost for count, cost in zip(groups, costs, strict=True)) / ranks
    ranges = []
    for weight, (count, cost) in enumerate(zip(groups, costs, strict=True)):
        pieces = min(count, ranks) if count * cost > fair else 1
        ends = [count * piece // pieces for piece in range(pieces + 1)]
        ranges += [Range(weight, first, end - first) for first, end in pairwise(ends)]
    return ranges


def _matrix_cost(options: SO | SRIP, view: WeightView) -> float:
    side = "small" if isinstance(options, SO) and options.same_on_all_sides else options.side
    order = view.order(side)
    return matrix_cost(options, order, view.rows + view.cols - order)
