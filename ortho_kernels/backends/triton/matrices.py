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
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ...matrix_view import matrix_view
from ...ops import ROWS
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
class WeightView:
    """How the matrices of one weight, or of its gradient, are found. `dims`: its columns', the slowest in memory first."""

    device: torch.device
    storage: torch.dtype
    shape: tuple[int, ...]
    groups: int
    side: int
    order: int
    depth: int
    dims: tuple[int, ...]

    def matrices_in(self, tensor: Tensor, base: int) -> list[StridedView]:
        """The matrices in a tensor of the weight's shape, seen from an address; none where strides don't describe them."""
        row_stride, column_stride = tensor.stride(0), _common_stride(tensor, self.dims)
        if column_stride is None and tensor.numel():
            return []
        own_strides = row_stride, column_stride or 0
        order_stride, depth_stride = own_strides if self.side == ROWS else own_strides[::-1]
        size = self.storage.itemsize
        first = (tensor.data_ptr() - base) // size if tensor.numel() else 0
        step = self.shape[0] // self.groups * row_stride
        aligned = is_aligned(tensor) and (step * size % VECTOR_BYTES == 0 or self.groups == 1)
        layout = self._layout(order_stride, depth_stride) if aligned else Layout.STRIDED
        return [StridedView(first + g * step, order_stride, depth_stride, layout) for g in range(self.groups)]

    def _layout(self, order_stride: int, depth_stride: int) -> Layout:
        """Of matrices that begin at a multiple of 16 bytes."""
        vector = VECTOR_BYTES // self.storage.itemsize
        if depth_stride == 1 and self.depth % vector == 0 and (order_stride % vector == 0 or self.order == 1):
            return Layout.DEPTH_MAJOR
        if order_stride == 1 and self.order % vector == 0 and (depth_stride % vector == 0 or self.depth == 1):
            return Layout.ORDER_MAJOR
        return Layout.STRIDED

    def entry_order(self) -> tuple[int, ...] | None:
        """For each column as it lies in memory, its place in the order of the shape; None if they are the same, or on the
        side of the rows."""
        if self.side == ROWS or list(self.dims) == sorted(self.dims):
            return None
        columns = torch.arange(torch.Size(self.shape[1:]).numel()).reshape(self.shape[1:])
        rest = [dim for dim in range(1, len(self.shape)) if dim not in self.dims]
        return tuple(columns.permute([dim - 1 for dim in (*self.dims, *rest)]).flatten().tolist())


def is_aligned(tensor: Tensor) -> bool:
    """Whether it begins at a multiple of 16 bytes: all that a plan depends on besides shapes, strides and dtypes."""
    return tensor.data_ptr() % VECTOR_BYTES == 0


def matrices_of(
    weights: Sequence[Tensor], groups: Sequence[int], sides: Sequence[int]
) -> tuple[list[WeightView], list[Matrix]]:
    """The views of the weights, and all matrices, groups of a weight side by side.

    Raises `RuntimeError`, naming the weight, where no matrix describes it, as the native kernels do.
    """
    views, matrices = [], []
    for index, (weight, count, side) in enumerate(zip(weights, groups, sides, strict=True)):
        view = _view(weight, index, count, side)
        found = view.matrices_in(weight, weight.data_ptr())
        if not found:
            raise RuntimeError(
                f"weights[{index}]: its columns don't lie in memory at one stride in any order; pass weight.contiguous()"
            )
        entry_order = view.entry_order()
        views.append(view)
        matrices += [Matrix(index, view.storage, view.order, view.depth, each, entry_order) for each in found]
    return views, matrices


def gradient_views(
    views: Sequence[WeightView],
    matrices: Sequence[Matrix],
    wanted: Sequence[bool],
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
            found += [None] * view.groups
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


def _view(weight: Tensor, index: int, groups: int, side: int) -> WeightView:
    if weight.dtype not in STORAGES:
        raise RuntimeError(f"weights[{index}]: expected float32, bfloat16 or float16, got {weight.dtype}")
    if weight.dim() < 2:
        raise RuntimeError(f"weights[{index}]: expected at least 2 dimensions, got {weight.dim()}")
    if groups < 1 or weight.shape[0] % groups:
        raise RuntimeError(f"weights[{index}]: {weight.shape[0]} rows can't be divided into {groups} groups")
    _, rows, cols = matrix_view(weight, groups)
    order, depth = (rows, cols) if side == ROWS else (cols, rows)
    dims = sorted((dim for dim in range(1, weight.dim()) if weight.shape[dim] != 1), key=weight.stride, reverse=True)
    return WeightView(weight.device, weight.dtype, tuple(weight.shape), groups, side, order, depth, tuple(dims))


def _common_stride(tensor: Tensor, dims: Sequence[int]) -> int | None:
    """The stride of the columns if these dimensions, slowest first, follow each other at one stride."""
    for slow, fast in pairwise(dims):
        if tensor.stride(slow) != tensor.stride(fast) * tensor.shape[fast]:
            return None
    return tensor.stride(dims[-1]) if dims else 1
