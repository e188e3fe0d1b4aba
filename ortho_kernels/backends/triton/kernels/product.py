"""The gradient of soft orthogonality, 4 g R W, for all matrices: one program for each tile of it."""

import triton
import triton.language as tl

from ..plan import PRODUCT_ITEM
from .blocks import (
    DEPTH,
    DEPTH_STRIDE,
    GRADIENT_DEPTH_STRIDE,
    GRADIENT_OFFSET,
    GRADIENT_ORDER_STRIDE,
    MATRIX_COLUMNS,
    ORDER,
    ORDER_STRIDE,
    RESIDUAL_OFFSET,
    left_of,
    load_block,
    matrix_data,
    store_block,
)

ITEM_COLUMNS = tl.constexpr(len(PRODUCT_ITEM))
MATRIX = tl.constexpr(PRODUCT_ITEM.index("matrix"))
LAYOUT_OF = tl.constexpr(PRODUCT_ITEM.index("layout"))
ROW = tl.constexpr(PRODUCT_ITEM.index("row"))
COLUMN = tl.constexpr(PRODUCT_ITEM.index("column"))


@triton.jit(do_not_specialize_on_alignment=["grad_values"])
def residual_products(
    pointers,
    matrices,
    items,
    grad_values,
    residuals,
    gradients,
    STORAGE: tl.constexpr,
    LAYOUTS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_ORDER: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    ALIGNED: tl.constexpr,
    INDEX: tl.constexpr,
    PACKED: tl.constexpr,
):
    """Products are of numbers of the type `OPERAND`. `PACKED` is wide enough for an index into the largest triangle."""
    item = items + tl.program_id(0).to(tl.int64) * ITEM_COLUMNS
    matrix_index = tl.load(item + MATRIX)
    matrix = matrices + matrix_index * MATRIX_COLUMNS
    layout = tl.load(item + LAYOUT_OF)
    row = tl.load(item + ROW)
    column = tl.load(item + COLUMN)
    order = tl.load(matrix + ORDER)
    depth = tl.load(matrix + DEPTH)
    data = matrix_data(pointers, matrix, STORAGE)
    packed = residuals + tl.load(matrix + RESIDUAL_OFFSET)
    gradient = gradients + tl.load(matrix + GRADIENT_OFFSET)
    scale = 4.0 * tl.load(grad_values + matrix_index)
    for LAYOUT in tl.static_range(3):
        if LAYOUTS & (1 << LAYOUT):
            if layout == LAYOUT:
                sums = product(
                    data, packed, row, column, order, depth,
                    tl.load(matrix + ORDER_STRIDE), tl.load(matrix + DEPTH_STRIDE),
                    LAYOUT, BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_ORDER, OPERAND, PRECISION, ALIGNED, INDEX, PACKED,
                )  # fmt: skip
                gradient_order_stride = tl.load(matrix + GRADIENT_ORDER_STRIDE)
                gradient_depth_stride = tl.load(matrix + GRADIENT_DEPTH_STRIDE)
                store_block(
                    (scale * sums).to(STORAGE),
                    gradient + row * gradient_order_stride + column * gradient_depth_stride,
                    left_of(order, row, BLOCK_ROWS), left_of(depth, column, BLOCK_COLUMNS),
                    gradient_order_stride, gradient_depth_stride, BLOCK_ROWS, BLOCK_COLUMNS, LAYOUT, ALIGNED, INDEX,
                )  # fmt: skip


@triton.jit
def product(
    data,
    packed,
    row,
    column,
    order,
    depth,
    order_stride,
    depth_stride,
    LAYOUT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_ORDER: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    ALIGNED: tl.constexpr,
    INDEX: tl.constexpr,
    PACKED: tl.constexpr,
):
    """A tile of R W. Only the lower triangle of R lies in memory, row by row: up to the diagonal a block of R is read as
    it is; beyond it the block that mirrors it is read, along its rows, and transposed."""
    sums = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
    here = data + column * depth_stride
    columns_left = left_of(depth, column, BLOCK_COLUMNS)
    rows = row.to(PACKED) + tl.arange(0, BLOCK_ROWS)
    for first in range(0, tl.minimum(order, row + BLOCK_ROWS), BLOCK_ORDER):
        inner = (first + tl.arange(0, BLOCK_ORDER)).to(PACKED)
        R = residual_block(packed, rows[:, None], inner[None, :], order)
        W = load_block(
            here + first * order_stride, left_of(order, first, BLOCK_ORDER), columns_left, order_stride, depth_stride,
            BLOCK_ORDER, BLOCK_COLUMNS, LAYOUT, ALIGNED, INDEX,
        )  # fmt: skip
        sums = tl.dot(R.to(OPERAND), W.to(OPERAND), sums, input_precision=PRECISION)
    for first in range(row + BLOCK_ROWS, order, BLOCK_ORDER):
        inner = (first + tl.arange(0, BLOCK_ORDER)).to(PACKED)
        mirrored = residual_block(packed, inner[:, None], rows[None, :], order)
        W = load_block(
            here + first * order_stride, left_of(order, first, BLOCK_ORDER), columns_left, order_stride, depth_stride,
            BLOCK_ORDER, BLOCK_COLUMNS, LAYOUT, ALIGNED, INDEX,
        )  # fmt: skip
        sums = tl.dot(tl.trans(mirrored.to(OPERAND)), W.to(OPERAND), sums, input_precision=PRECISION)
    return sums


@triton.jit
def residual_block(packed, i, j, order):
    """R[i, j] from its packed lower triangle, with zeros beyond the order."""
    larger = tl.maximum(i, j)
    smaller = tl.minimum(i, j)
    return tl.load(packed + larger * (larger + 1) // 2 + smaller, mask=larger < order, other=0.0)
