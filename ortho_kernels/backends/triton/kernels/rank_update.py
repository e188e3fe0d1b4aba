"""The gradient of SRIP, g * sum over pairs of (p x^T + x p^T) W, for all matrices: one program for each block of the depth.

W is read once: with all vectors as the rows of V, and V' the same with each vector in its partner's place, the gradient is
V'^T (V W).
"""

import triton
import triton.language as tl

from ..plan import UPDATE_ITEM
from .blocks import (
    DEPTH,
    DEPTH_STRIDE,
    GRADIENT_DEPTH_STRIDE,
    GRADIENT_OFFSET,
    GRADIENT_ORDER_STRIDE,
    MATRIX_COLUMNS,
    ORDER,
    ORDER_STRIDE,
    VECTOR_OFFSET,
    entries_in_caller_order,
    left_of,
    load_block,
    matrix_data,
    store_block,
)

ITEM_COLUMNS = tl.constexpr(len(UPDATE_ITEM))
MATRIX = tl.constexpr(UPDATE_ITEM.index("matrix"))
LAYOUT_OF = tl.constexpr(UPDATE_ITEM.index("layout"))
BEGIN = tl.constexpr(UPDATE_ITEM.index("begin"))


@triton.jit(do_not_specialize=["pairs"], do_not_specialize_on_alignment=["grad_values"])
def rank_updates(
    pointers,
    matrices,
    items,
    entry_orders,
    grad_values,
    kept,
    gradients,
    pairs,
    STORAGE: tl.constexpr,
    LAYOUTS: tl.constexpr,
    VECTORS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    ALIGNED: tl.constexpr,
    INDEX: tl.constexpr,
):
    """`VECTORS`, a power of two, is at least 2 pairs, and 16, the least that tensor cores multiply."""
    item = items + tl.program_id(0).to(tl.int64) * ITEM_COLUMNS
    matrix_index = tl.load(item + MATRIX)
    matrix = matrices + matrix_index * MATRIX_COLUMNS
    layout = tl.load(item + LAYOUT_OF)
    data = matrix_data(pointers, matrix, STORAGE)
    gradient = gradients + tl.load(matrix + GRADIENT_OFFSET)
    own_vectors = kept + 2 * pairs * tl.load(matrix + VECTOR_OFFSET)
    scale = tl.load(grad_values + matrix_index)
    for LAYOUT in tl.static_range(3):
        if LAYOUTS & (1 << LAYOUT):
            if layout == LAYOUT:
                rank_update(
                    item, matrix, data, gradient, own_vectors, entry_orders, scale, pairs,
                    STORAGE, LAYOUT, VECTORS, ROWS, COLUMNS, PRECISION, ALIGNED, INDEX,
                )  # fmt: skip


@triton.jit
def rank_update(
    item,
    matrix,
    data,
    gradient,
    own_vectors,
    entry_orders,
    scale,
    pairs,
    STORAGE: tl.constexpr,
    LAYOUT: tl.constexpr,
    VECTORS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    ALIGNED: tl.constexpr,
    INDEX: tl.constexpr,
):
    order = tl.load(matrix + ORDER)
    depth = tl.load(matrix + DEPTH)
    order_stride = tl.load(matrix + ORDER_STRIDE)
    depth_stride = tl.load(matrix + DEPTH_STRIDE)
    gradient_order_stride = tl.load(matrix + GRADIENT_ORDER_STRIDE)
    gradient_depth_stride = tl.load(matrix + GRADIENT_DEPTH_STRIDE)
    begin = tl.load(item + BEGIN)
    depths_left = left_of(depth, begin, COLUMNS)
    which = tl.arange(0, VECTORS)
    V_W = tl.zeros((VECTORS, COLUMNS), tl.float32)
    for row in range(0, order, ROWS):
        rows = row + tl.arange(0, ROWS)
        W = load_block(
            data + begin * depth_stride + row * order_stride, left_of(order, row, ROWS), depths_left,
            order_stride, depth_stride, ROWS, COLUMNS, LAYOUT, ALIGNED, INDEX,
        ).to(tl.float32)  # fmt: skip
        places = entries_in_caller_order(entry_orders, matrix, rows, order)
        inside = (which[:, None] < 2 * pairs) & (rows[None, :] < order)
        V = tl.load(own_vectors + which[:, None] * order + places[None, :], mask=inside, other=0.0)
        V_W = tl.dot(V, W, V_W, input_precision=PRECISION)
    partner = which ^ 1
    for row in range(0, order, ROWS):
        rows = row + tl.arange(0, ROWS)
        places = entries_in_caller_order(entry_orders, matrix, rows, order)
        inside = (partner[None, :] < 2 * pairs) & (rows[:, None] < order)
        V = tl.load(own_vectors + partner[None, :] * order + places[:, None], mask=inside, other=0.0)
        update = scale * tl.dot(V, V_W, input_precision=PRECISION)
        store_block(
            update.to(STORAGE), gradient + begin * gradient_depth_stride + row * gradient_order_stride,
            left_of(order, row, ROWS), depths_left, gradient_order_stride, gradient_depth_stride,
            ROWS, COLUMNS, LAYOUT, ALIGNED, INDEX,
        )  # fmt: skip
