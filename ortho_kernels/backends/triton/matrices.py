"""Weights as the kernels see them: matrices of `order` vectors of `depth` numbers each, with any strides.

The Gram is order x order. Which side of the weight it comes from, and whether the weight is stored by rows or by columns,
is only a matter of the two strides: no kernel knows of sides. Columns are numbered as they lie in memory: channels_last
weights have another order of columns than contiguous ones, and the same Gram.

Pure data: nothing here needs triton or a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from ...weight_views import ROWS, WeightView, column_permutation, column_stride, view_weight
from .records import StridedView

VECTOR_BYTES = 16  # of the widest copy from global to shared memory
WIDEST_BLOCK = 256  # entries along a dimension
STORAGES = (torch.float32, torch.bfloat16, torch.float16)


class Layout(IntEnum):
    """How a matrix is read; the first two in copies of 16 bytes."""

    DEPTH_MAJOR = 0  # its vectors are contiguous and aligned
    ORDER_MAJOR = 1  # its entries of one depth are
    STRIDED = 2  # neither


@dataclass(frozen=True)
class Matrix:
    """One matrix of a weight. `entry_order`, where it is not None, is the caller's index of each entry of a vector (who
    numbers columns as the shape of the weight does)."""

    weight: int
    storage: torch.dtype
    order: int
    depth: int
    view: StridedView
    entry_order: tuple[int, ...] | None


@dataclass(frozen=True)
class SidedView:
    """A weight's view on one side of it, and what a gradient must share with the weight."""

    device: torch.device
    storage: torch.dtype
    shape: tuple[int, ...]
    view: WeightView
    side: int

    @property
    def order(self) -> int:
        return self.view.rows if self.side == ROWS else self.view.cols

    @property
    def depth(self) -> int:
        return self.view.cols if self.side == ROWS else self.view.rows

    def matrices_in(self, tensor: Tensor, base: int) -> list[StridedView]:
        """The matrices in a tensor of the weight's shape, seen from an address; none where strides don't describe them."""
        columns_apart = column_stride(self.shape, tensor.stride(), self.view.column_dims)
        if columns_apart is None:
            return []
        own_strides = tensor.stride(0), columns_apart
        order_stride, depth_stride = own_strides if self.side == ROWS else own_strides[::-1]
        size = self.storage.itemsize
        first = (tensor.data_ptr() - base) // size if tensor.numel() else 0
        groups, step = self.view.groups, self.view.rows * tensor.stride(0)
        aligned = is_aligned(tensor) and (step * size % VECTOR_BYTES == 0 or groups == 1)
        layout = self._layout(order_stride, depth_stride) if aligned else Layout.STRIDED
        return [StridedView(first + g * step, order_stride, depth_stride, layout) for g in range(groups)]

    def _layout(self, order_stride: int, depth_stride: int) -> Layout:
        """Of matrices that begin at a multiple of 16 bytes."""
        vector = VECTOR_BYTES // self.storage.itemsize
        if depth_stride == 1 and self.depth % vector == 0 and (order_stride % vector == 0 or self.order == 1):
            return Layout.DEPTH_MAJOR
        if order_stride == 1 and self.order % vector == 0 and (depth_stride % vector == 0 or self.depth == 1):
            return Layout.ORDER_MAJOR
        return Layout.STRIDED


def is_aligned(tensor: Tensor) -> bool:
    """Whether it begins at a multiple of 16 bytes: all that a plan depends on besides shapes, strides and dtypes."""
    return tensor.data_ptr() % VECTOR_BYTES == 0


def matrices_of(
    weights: Sequence[Tensor], groups: Sequence[int], sides: Sequence[int]
) -> tuple[list[SidedView], list[Matrix]]:
    """The views of the weights, and all matrices, groups of a weight side by side.

    Raises `RuntimeError`, naming the weight, where no matrix describes it, as the native kernels do.
    """
    views, matrices = [], []
    for index, (weight, count, side) in enumerate(zip(weights, groups, sides, strict=True)):
        if weight.dtype not in STORAGES:
            raise RuntimeError(f"weights[{index}]: expected float32, bfloat16 or float16, got {weight.dtype}")
        view = SidedView(weight.device, weight.dtype, tuple(weight.shape), view_weight(weight, count), side)
        found = view.matrices_in(weight, weight.data_ptr())
        if not found:
            raise RuntimeError(
                f"weights[{index}]: its columns don't lie in memory at one stride in any order; pass weight.contiguous()"
            )
        permutation = None if side == ROWS else column_permutation(weight)
        entry_order = None if permutation is None else tuple(permutation)
        views.append(view)
        matrices += [Matrix(index, view.storage, view.order, view.depth, each, entry_order) for each in found]
    return views, matrices


def gradient_views(
    views: Sequence[SidedView],
    matrices: Sequence[Matrix],
    wanted: Sequence[int],
    gradients: Sequence[Tensor],
    origins: Mapping[torch.dtype, int],
) -> list[StridedView | None]:
    """Each matrix in the gradient of its weight, or None where that is not wanted. Offsets count from the origin of the
    dtype, an address; a layout holds for the weight too.

    Raises `RuntimeError`, naming the weight, where the columns of a gradient don't follow the order of the weight's.
    """
    found: list[StridedView | None] = []
    given = iter(gradients)
    for index, (view, want) in enumerate(zip(views, wanted, strict=True)):
        if not want:
            found += [None] * view.view.groups
            continue
        gradient = next(given)
        fits = (gradient.device, gradient.dtype, gradient.shape) == (view.device, view.storage, view.shape)
        places = view.matrices_in(gradient, origins[view.storage]) if fits else []
        if not places:
            raise RuntimeError(
                f"weights[{index}]: its gradient must have its device, dtype and shape, and columns in the same order; got "
                f"{gradient.dtype} of shape {tuple(gradient.shape)} and strides {gradient.stride()} on {gradient.device}"
            )
        found += places
    return [
        place if place is None or place.layout == matrix.view.layout else place._replace(layout=Layout.STRIDED)
        for place, matrix in zip(found, matrices, strict=True)
    ]


class Access(NamedTuple):
    """How the matrices of one launch are read and written: the bit set of their layouts, and whether offsets within a block
    may pass 2^31, which takes huge strides."""

    layouts: int
    wide: bool


def access_to(matrices: Sequence[Matrix], places: Sequence[StridedView | None]) -> dict[torch.dtype, Access]:
    """By dtype, for matrices that are read and `places` that are read or written beside them."""
    result: dict[torch.dtype, Access] = {}
    for matrix, place in zip(matrices, places, strict=True):
        if place is not None:
            layouts, wide = result.get(matrix.storage, (0, False))
            widest = max(*matrix.view[1:3], *place[1:3])
            result[matrix.storage] = Access(layouts | 1 << place.layout, wide or widest * 2 * WIDEST_BLOCK >= 2**31)
    return result
