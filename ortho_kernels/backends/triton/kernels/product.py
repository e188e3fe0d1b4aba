"""The gradient of soft orthogonality, 4 f R W with a factor f for each matrix: one program for each tile of it."""

import triton
import triton.language as tl

from ..records import ProductItem
from .blocks import gradient_at, load_block, load_matrix, load_row, load_view, weight_at, write_block

ITEM = tl.constexpr(ProductItem._fields)


@triton.jit(do_not_specialize=["accumulate"], do_not_specialize_on_alignment=["factors", "residuals", "gradients"])
def residual_products(tables, items, factors, residuals, gradients, gradient_views, accumulate, META: tl.constexpr):
    item = ProductItem(*load_row(items, tl.program_id(0), ITEM))
    m = load_matrix(tables, item.matrix)
    W = weight_at(tables, m, META)
    view = load_view(gradient_views, item.matrix)
    packed = residuals + m.residual_offset
    scale = 4.0 * tl.load(factors + item.matrix)
    for LAYOUT in tl.static_range(3):
        if META.LAYOUTS >> LAYOUT & 1:
            if view.layout == LAYOUT:
                write_block(
                    scale * product(item, m, W, packed, LAYOUT, META), gradient_at(gradients, view),
                    item.row, item.column, m.order, m.depth, accumulate, META.BLOCK_ROWS, META.BLOCK_COLUMNS, LAYOUT, META,
                )  # fmt: skip


@triton.jit
def product(item, m, W, packed, LAYOUT: tl.constexpr, META: tl.constexpr):
    """A tile of R W, products of numbers of the type `OPERAND`. Only the lower triangle of R lies in memory, row by row: up
    to the diagonal a block of R is read as it is; beyond it the block that mirrors it is read, along its rows, and
    transposed. `PACKED` is wide enough for an index into the largest triangle."""
    sums = tl.zeros((META.BLOCK_ROWS, META.BLOCK_COLUMNS), tl.float32)
    rows = item.row.to(META.PACKED) + tl.arange(0, META.BLOCK_ROWS)
    for first in range(0, tl.minimum(m.order, item.row + META.BLOCK_ROWS), META.BLOCK_ORDER):
        inner = (first + tl.arange(0, META.BLOCK_ORDER)).to(META.PACKED)
        R = residual_block(packed, rows[:, None], inner[None, :], m.order)
        block = load_block(W, first, item.column, m.order, m.depth, META.BLOCK_ORDER, META.BLOCK_COLUMNS, LAYOUT, META)
        sums = tl.dot(R.to(META.OPERAND), block.to(META.OPERAND), sums, input_precision=META.PRECISION)
    for first in range(item.row + META.BLOCK_ROWS, m.order, META.BLOCK_ORDER):
        inner = (first + tl.arange(0, META.BLOCK_ORDER)).to(META.PACKED)
        mirrored = residual_block(packed, inner[:, None], rows[None, :], m.order)
        block = load_block(W, first, item.column, m.order, m.depth, META.BLOCK_ORDER, META.BLOCK_COLUMNS, LAYOUT, META)
        sums = tl.dot(
            tl.trans(mirrored.to(META.OPERAND)), block.to(META.OPERAND), sums, input_precision=META.PRECISION
        )  # fmt: skip
    return sums


@triton.jit
def residual_block(packed, i, j, order):
    """R[i, j] from its packed lower triangle, with zeros beyond the order."""
    larger = tl.maximum(i, j)
    smaller = tl.minimum(i, j)
    return tl.load(packed + larger * (larger + 1) // 2 + smaller, mask=larger < order, other=0.0)
