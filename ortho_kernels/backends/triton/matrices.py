"""Weights as the kernels see them: matrices of `order` vectors of `depth` numbers each, with any strides.

The Gram is order x order. Which side of the weight it comes from, and whether the weight is stored by rows or by columns,
is only a matter of the two strides: no kernel knows of sides. Columns are numbered as they lie in memory: channels_last
weights have another order of columns than contiguous ones, and the same Gram.

Pure data: nothing here needs triton or a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

import torch
from torch import Tensor

from ...weight_views import ROWS, view_weight

VECTOR_BYTES = 16  # of the widest copy from global to shared memory
STORAGES = (torch.float32, torch.bfloat16, torch.float16)


class Layout(IntEnum):
    """How a matrix is read; the first two in copies of 16 bytes."""

    DEPTH_MAJOR = 0  # its vectors are contiguous and aligned
    ORDER_MAJOR = 1  # its entries of one depth are
    STRIDED = 2  # neither


@dataclass(frozen=True)
class Matrix:
    """One matrix of a weight. Offsets and strides count elements; `entry_order`, where it is not None, is the caller's
    index of each entry of a vector (who numbers columns as the shape of the weight does).

    `gradient_strides` are those along order and depth.
    """

    weight: int
    storage: torch.dtype
    order: int
    depth: int
    offset: int
    order_stride: int
    depth_stride: int
    layout: Layout
    gradient_offset: int  # within the weight's gradient
    gradient_strides: tuple[int, int]
    entry_order: tuple[int, ...] | None

    @property
    def gradient_layout(self) -> Layout:
        """A layout that holds for the matrix and for its gradient."""
        own = _layout(self.order, self.depth, *self.gradient_strides, (self.gradient_offset,), self.storage.itemsize)
        return self.layout if own == self.layout else Layout.STRIDED


@dataclass(frozen=True)
class GradientLayout:
    """The gradient of one weight as `torch.empty_like` lays it out; `size` counts elements.

    Where its columns don't follow the order of the weight's (only possible for weights with overlapping or skipped
    memory), kernels write a gradient of `column_strides` instead, which is copied.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    written_strides: tuple[int, ...]

    @property
    def copied(self) -> bool:
        return self.strides != self.written_strides


def matrices_of(
    weights: Sequence[Tensor], groups: Sequence[int], sides: Sequence[int]
) -> tuple[list[Matrix], list[GradientLayout]]:
    """All matrices, groups of a weight side by side, and the layout of each weight's gradient.

    Raises `RuntimeError`, naming the weight, where no matrix describes it, as the native kernels do.
    """
    matrices: list[Matrix] = []
    gradients = []
    for index, (weight, count, side) in enumerate(zip(weights, groups, sides, strict=True)):
        _check(weight, index, count)
        view = view_weight(weight, count)
        dims = sorted(
            (dim for dim in range(1, weight.dim()) if weight.shape[dim] != 1), key=weight.stride, reverse=True
        )
        strides = (weight.stride(0), _column_stride(weight.shape, weight.stride(), dims))
        if strides[1] < 0 and weight.numel():
            raise RuntimeError(
                f"weights[{index}]: its columns don't lie in memory at one stride in any order; pass weight.contiguous()"
            )
        gradients.append(gradient := _gradient_layout(weight, dims))
        written = gradient.written_strides
        gradient_strides = (written[0], _column_stride(weight.shape, written, dims))
        entry_order = None if side == ROWS else _entry_order(weight.shape, dims)
        order, depth = (view.rows, view.cols) if side == ROWS else (view.cols, view.rows)
        if side != ROWS:
            strides, gradient_strides = strides[::-1], gradient_strides[::-1]
        bases = (weight.data_ptr() // weight.element_size(), view.rows * weight.stride(0) if count > 1 else 0)
        layout = _layout(order, depth, *strides, bases, weight.element_size())
        matrices += [
            Matrix(
                weight=index, storage=weight.dtype, order=order, depth=depth,
                offset=g * view.rows * weight.stride(0), order_stride=strides[0], depth_stride=strides[1],
                layout=layout, gradient_offset=g * view.rows * written[0], gradient_strides=gradient_strides,
                entry_order=entry_order,
            )
            for g in range(count)
        ]  # fmt: skip
    return matrices, gradients


def alignment(weight: Tensor) -> bool:
    """What a plan depends on besides shapes and strides: whether the weight begins at a multiple of 16 bytes."""
    return weight.data_ptr() % VECTOR_BYTES == 0


def _check(weight: Tensor, index: int, groups: int) -> None:
    if weight.dtype not in STORAGES:
        raise RuntimeError(f"weights[{index}]: expected float32, bfloat16 or float16, got {weight.dtype}")
    if weight.dim() < 2:
        raise RuntimeError(f"weights[{index}]: expected at least 2 dimensions, got {weight.dim()}")
    if groups < 1 or weight.shape[0] % groups:
        raise RuntimeError(f"weights[{index}]: {weight.shape[0]} rows can't be divided into {groups} groups")


def _column_stride(shape: Sequence[int], strides: Sequence[int], dims: Sequence[int]) -> int:
    """The stride of the columns if these dimensions, slowest first, follow each other at one stride; -1 if not."""
    for slow, fast in pairwise(dims):
        if strides[slow] != strides[fast] * shape[fast]:
            return -1
    return strides[dims[-1]] if dims else 1


def _gradient_layout(weight: Tensor, dims: Sequence[int]) -> GradientLayout:
    shape, strides = tuple(weight.shape), torch.empty_like(weight, device="meta").stride()
    written = strides
    if weight.numel() and _column_stride(shape, strides, dims) < 0:
        dense, stride = [1] * weight.dim(), 1
        for dim in reversed(dims):
            dense[dim] = stride
            stride *= shape[dim]
        dense[0] = stride
        written = tuple(dense)
    return GradientLayout(shape, tuple(strides), written)


def _entry_order(shape: Sequence[int], dims: Sequence[int]) -> tuple[int, ...] | None:
    """The place in the order of the shape of each column as it lies in memory; None if they are the same."""
    if list(dims) == sorted(dims):
        return None
    columns = torch.arange(torch.Size(shape[1:]).numel()).reshape(shape[1:])
    rest = [dim for dim in range(1, len(shape)) if dim not in dims]
    return tuple(columns.permute([dim - 1 for dim in (*dims, *rest)]).flatten().tolist())


def _layout(
    order: int, depth: int, order_stride: int, depth_stride: int, offsets: Sequence[int], element_size: int
) -> Layout:
    vector = VECTOR_BYTES // element_size
    if all(offset % vector == 0 for offset in offsets):
        if depth_stride == 1 and depth % vector == 0 and (order_stride % vector == 0 or order == 1):
            return Layout.DEPTH_MAJOR
        if order_stride == 1 and order % vector == 0 and (depth_stride % vector == 0 or depth == 1):
            return Layout.ORDER_MAJOR
    return Layout.STRIDED
