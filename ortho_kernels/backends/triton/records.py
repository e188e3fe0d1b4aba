"""The rows of the tables, as the host writes them and kernels read them, and arguments that kernels take together.

On the host the fields of a row are int, in a kernel tensors of int64: offsets pass 2^31 in large models.

Pure data: nothing here needs triton or a GPU.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class StridedView(NamedTuple):
    """Where a matrix lies in a tensor, in entries: `offset` from the tensor's base, strides along order and depth."""

    offset: Any
    order_stride: Any
    depth_stride: Any
    layout: Any  # a `Layout`


class MatrixRow(NamedTuple):
    """One matrix: its `StridedView` in its weight, its size, and its place in what all matrices share."""

    weight: Any
    offset: Any
    order_stride: Any
    depth_stride: Any
    layout: Any
    order: Any
    depth: Any
    residual_offset: Any
    dense_offset: Any  # of its residual, where both triangles of it are kept
    vector_offset: Any
    entry_order: Any  # where its order of entries begins, or -1
    first_block: Any  # of its residual
    blocks: Any
    sums_offset: Any
    parts: Any  # in which a pass is summed up
    first_square: Any  # of its vectors, which are squared in parts
    squares: Any


class ResidualItem(NamedTuple):
    """A part of a block of a residual: depths from `begin` to `end`; `slot` is where the parts' sums are kept."""

    matrix: Any
    kind: Any  # a `Kind`
    row: Any
    column: Any
    begin: Any
    end: Any
    part: Any
    parts: Any
    block: Any
    slot: Any


class ProductItem(NamedTuple):
    """A tile of R W."""

    matrix: Any
    row: Any
    column: Any


class PassItem(NamedTuple):
    """A range of the depth of a pass; `shape` is that of the tiles, see `Plan`."""

    matrix: Any
    begin: Any
    end: Any
    part: Any
    shape: Any


class CombineItem(NamedTuple):
    """A range of the entries of a vector."""

    matrix: Any
    row: Any


class UpdateItem(NamedTuple):
    """A block of the depth of SRIP's gradient."""

    matrix: Any
    begin: Any


class Tables(NamedTuple):
    """What every kernel reads: the addresses of the weights, the rows of the matrices, and their orders of entries."""

    addresses: Any
    matrices: Any
    entry_orders: Any


class State(NamedTuple):
    """What power iteration writes: values and vectors, which are returned, and its workspace."""

    sigmas: Any
    kept: Any
    vectors: Any
    sums: Any
    squares: Any
