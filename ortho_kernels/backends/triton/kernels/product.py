"""The gradient of soft orthogonality, 4 f R W with a factor f for each matrix, in two launches.

Only the lower triangles of R are kept, row by row. The first launch spreads them to dense matrices, padded with zeros: a
program for each tile. In the second, a program for each tile of R W reads R as it reads W, in copies of 16 bytes.
"""

import triton
import triton.language as tl

from ..plan import DENSE_ROWS, SPREAD_ROWS
from ..records import ProductItem
from .blocks import (
    DEPTH_MAJOR,
    Strided,
    gradient_at,
    load_block,
    load_matrix,
    load_row,
    load_view,
    weight_at,
    write_block,
)
from .parts import operands_of

ITEM = tl.constexpr(ProductItem._fields)
SPREAD = tl.constexpr(SPREAD_ROWS)
DENSE = tl.constexpr(DENSE_ROWS)


@triton.jit
def dense_order(m):
    return (m.order + (DENSE - 1)) // DENSE * DENSE


@triton.jit(do_not_specialize_on_alignment=["residuals"])
def spread_residuals(items, tables, residuals, dense, META: tl.constexpr):
    """`PACKED` is wide enough for an index into the largest triangle, and into a tile of the widest dense residual.

    `OPERAND` is the type of `dense`.
    """
    item = ProductItem(*load_row(items, tl.program_id(0), ITEM))
    m = load_matrix(tables, item.matrix)
    size = dense_order(m)
    rows = item.row.to(META.PACKED) + tl.arange(0, SPREAD)
    columns = item.column.to(META.PACKED) + tl.arange(0, SPREAD)
    R = residual_block(residuals + m.residual_offset, rows[:, None], columns[None, :], m.order)
    R = R.to(META.OPERAND)
    own = dense + m.dense_offset
    inside = (rows < size)[:, None] & (columns < size)[None, :]
    tl.store(own + (rows[:, None] * size + columns[None, :]), R, mask=inside)
    if item.row != item.column:
        mirrored = own + (columns[:, None] * size + rows[None, :])
        tl.store(mirrored, tl.trans(R), mask=tl.trans(inside))


@triton.jit
def residual_block(packed, i, j, order):
    """R[i, j] from its packed lower triangle, with zeros beyond the order."""
    larger = tl.maximum(i, j)
    smaller = tl.minimum(i, j)
    return tl.load(packed + larger * (larger + 1) // 2 + smaller, mask=larger < order, other=0.0)


@triton.jit(do_not_specialize=["accumulate"], do_not_specialize_on_alignment=["factors", "gradients"])
def residual_products(tables, items, factors, dense, gradients, gradient_views, accumulate, META: tl.constexpr):
    item = ProductItem(*load_row(items, tl.program_id(0), ITEM))
    m = load_matrix(tables, item.matrix)
    W = weight_at(tables, m, META)
    view = load_view(gradient_views, item.matrix)
    size = dense_order(m)
    R = Strided(dense + m.dense_offset, size, tl.full((), 1, tl.int64))
    scale = 4.0 * tl.load(factors + item.matrix)
    for LAYOUT in tl.static_range(3):
        if META.LAYOUTS >> LAYOUT & 1:
            if view.layout == LAYOUT:
                write_block(
                    scale * product(item, m, R, size, W, LAYOUT, META), gradient_at(gradients, view),
                    item.row, item.column, m.order, m.depth, accumulate, META.BLOCK_ROWS, META.BLOCK_COLUMNS, LAYOUT, META,
                )  # fmt: skip


@triton.jit
def product(item, m, R, size, W, LAYOUT: tl.constexpr, META: tl.constexpr):
    """A tile of R W, as the transpose of W^T R: so numbers of W come to the tensor cores from registers, and those of the
    symmetric R from shared memory as they lie. Products of numbers of the type `OPERAND`."""
    sums = tl.zeros((META.BLOCK_COLUMNS, META.BLOCK_ROWS), tl.float32)
    for first in range(0, m.order, META.BLOCK_ORDER):
        block = load_block(W, first, item.column, m.order, m.depth, META.BLOCK_ORDER, META.BLOCK_COLUMNS, LAYOUT, META)
        left = tl.trans(block.to(META.OPERAND))
        right = tl.trans(
            load_block(R, item.row, first, size, size, META.BLOCK_ROWS, META.BLOCK_ORDER, DEPTH_MAJOR, META)
        )
        left, right = operands_of(left, right, META.PRECISION, META.UPCAST)
        sums = tl.dot(left, right, sums, input_precision="ieee" if META.PRECISION == "bf16x8" else META.PRECISION)
    return tl.trans(sums)
