"""Weights and the others against which they are penalized, seen as pairs of matrices."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .weight_checks import check_groups
from .weight_views import WeightViews, column_dims, contiguous_strides, weight_views


class PairViews(WeightViews):
    """The views of a list of weights followed by the other of each.

    Kernels number columns as they lie in memory. Where the two of a pair differ in that, one is copied to the order of its
    shape, as are those that no strides describe.
    """

    def __init__(self, tensors: Sequence[Tensor], groups: Sequence[int]) -> None:
        super().__init__(tensors, groups)
        self.pair_count = len(tensors) // 2
        self.pair_groups = self.groups[: self.pair_count]
        self.matrix_count //= 2
        for index in range(self.pair_count):
            self._check(index, tensors)
            self._agree(index, tensors)

    def name(self, index: int) -> str:
        return f"weights[{index}]" if index < self.pair_count else f"against[{index - self.pair_count}]"

    def split(self, tensors: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """The weights, and the others."""
        return tensors[: self.pair_count], tensors[self.pair_count :]

    def entries(self, side: str) -> list[int]:
        """The number of entries of every cross Gram, which has no sides."""
        views, others = self.views[: self.pair_count], self.views[self.pair_count :]
        return [a.rows * b.rows for a, b in zip(views, others, strict=True) for _ in range(a.groups)]

    def _check(self, index: int, tensors: Sequence[Tensor]) -> None:
        other = index + self.pair_count
        a, b = tensors[index], tensors[other]
        view, other_view = self.views[index], self.views[other]
        if view.cols != other_view.cols:
            raise ValueError(
                f"{self.name(index)}, seen as {view}, has rows of {view.cols} numbers, {self.name(other)}, seen as "
                f"{other_view}, rows of {other_view.cols}; a cross Gram A B^T needs rows of one length"
            )
        if a.dtype != b.dtype:
            raise TypeError(
                f"{self.name(index)} has dtype {a.dtype}, {self.name(other)} {b.dtype}; a pair needs one dtype: convert "
                f"one of them, such as {self.name(other)}.to({a.dtype})"
            )

    def _agree(self, index: int, tensors: Sequence[Tensor]) -> None:
        """Lists those of the pair to be copied, so that both number their columns alike."""
        pair = (index, index + self.pair_count)
        orders = [None if each in self._copied else _memory_order(tensors[each]) for each in pair]
        if orders[0] == orders[1]:
            return
        for each, order in zip(pair, orders, strict=True):
            if order is not None:
                self._copied.append(each)
                shape, dtype = tensors[each].shape, tensors[each].dtype
                self.gradient_forms[each] = contiguous_strides(shape), dtype


def _memory_order(weight: Tensor) -> list[tuple[int, int]] | None:
    """The dimensions of the columns as they lie in memory, with their sizes; None in the order of the shape."""
    dims = column_dims(weight)
    return None if list(dims) == sorted(dims) else [(dim, weight.shape[dim]) for dim in dims]


def pair_views(
    weights: Sequence[Tensor], others: Sequence[Tensor], groups: int | Sequence[int]
) -> tuple[list[Tensor], PairViews]:
    """Both lists as one, and its views; `TypeError` or `ValueError`, naming the weight, where there is no cross Gram."""
    if len(others) != len(weights):
        raise ValueError(f"against must have one tensor for each weight: got {len(others)} for {len(weights)} weights")
    tensors = [*weights, *others]
    counts = check_groups(groups, len(weights)) * 2
    names = [f"{name}[{index}]" for name in ("weights", "against") for index in range(len(weights))]
    return tensors, weight_views(tensors, counts, names, PairViews)
