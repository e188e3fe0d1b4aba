"""SRIP's power iteration for all matrices: in one cooperative launch, or in two launches for each application of R.

With x_i = R x_(i-1), normalized at every step, and s_i = |R x_(i-1)|, the value is s_m. The adjoints, each scaled by the
length that its partner was divided by, are p_m = x_m, p_(m-1) = (R p_m - s_m x_(m-1)) / s_(m-1), p_i = R p_(i+1) / s_i.
The gradient is the sum of (p_i x_(i-1)^T + x_(i-1) p_i^T) W over i: for i = m alone where vectors are constants.

Steps 0 to m-1 make x_1 to x_m, steps m to 2m-2 make p_(m-1) to p_1. Each is a pass over all matrices, W (W^T x) in parts
of the depth, and then the sums of the parts. In the workspace, x_i stands at place i, not yet divided by s_i, with its
squares in parts beside it; p_i stands at place m + i. R itself is never formed.

All arithmetic is in float64, which a pass that waits for memory has time for on data-center GPUs: R x is a difference of
nearly equal numbers, and so are the adjoints.
"""

import triton
import triton.language as tl

from ..plan import COMBINE_ITEM, COMBINED_ROWS, PASS_ITEM
from .blocks import (
    DEPTH_STRIDE,
    FIRST_SQUARES,
    MATRIX_COLUMNS,
    ORDER,
    ORDER_STRIDE,
    PARTS,
    SQUARES,
    SUMS_OFFSET,
    VECTOR_OFFSET,
    entries_in_caller_order,
    left_of,
    load_block,
    matrix_data,
    wait_for_all,
)

PASS_COLUMNS = tl.constexpr(len(PASS_ITEM))
PASS_MATRIX = tl.constexpr(PASS_ITEM.index("matrix"))
PASS_LAYOUT = tl.constexpr(PASS_ITEM.index("layout"))
PASS_BEGIN = tl.constexpr(PASS_ITEM.index("begin"))
PASS_END = tl.constexpr(PASS_ITEM.index("end"))
PASS_PART = tl.constexpr(PASS_ITEM.index("part"))
COMBINE_COLUMNS = tl.constexpr(len(COMBINE_ITEM))
COMBINE_MATRIX = tl.constexpr(COMBINE_ITEM.index("matrix"))
COMBINE_ROW = tl.constexpr(COMBINE_ITEM.index("row"))
COMBINED = tl.constexpr(COMBINED_ROWS)
PARTS_AT_ONCE = tl.constexpr(4)
SQUARES_AT_ONCE = tl.constexpr(64)


# Counts vary from list to list, and a start vector may lie anywhere: one compilation serves all.
VARYING = (
    "pass_count", "combine_count", "total_order", "total_squares", "step", "iterations", "steps", "pairs",
)  # fmt: skip


@triton.jit(do_not_specialize=VARYING, do_not_specialize_on_alignment=["start"])
def iterate(
    pointers,
    matrices,
    passes,
    pass_count,
    combines,
    combine_count,
    entry_orders,
    start,
    values,
    kept,
    vectors,
    sums,
    squares,
    barrier,
    total_order,
    total_squares,
    iterations,
    steps,
    pairs,
    STORAGE: tl.constexpr,
    LAYOUTS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ALIGNED: tl.constexpr,
    INDEX: tl.constexpr,
):
    """All steps, with barriers over the grid: every program must be running at once."""
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    for i in range(program, combine_count, programs):
        begin(combines + i * COMBINE_COLUMNS, matrices, entry_orders, start, vectors, squares)
    wait_for_all(barrier, programs, 1)
    for step in range(0, steps):
        for i in range(program, pass_count, programs):
            apply(
                passes + i * PASS_COLUMNS, step, iterations, pointers, matrices, vectors, sums, total_order,
                STORAGE, LAYOUTS, ROWS, COLUMNS, ALIGNED, INDEX,
            )  # fmt: skip
        wait_for_all(barrier, programs, 2 * step + 2)
        for i in range(program, combine_count, programs):
            combine(
                combines + i * COMBINE_COLUMNS, step, iterations, matrices, vectors, sums, squares,
                total_order, total_squares,
            )  # fmt: skip
        wait_for_all(barrier, programs, 2 * step + 3)
    for i in range(program, combine_count, programs):
        finish(
            combines + i * COMBINE_COLUMNS, iterations, pairs, matrices, entry_orders, values, kept, vectors, squares,
            total_order, total_squares,
        )  # fmt: skip
    # The last to leave sets the barrier back for the next launch.
    if tl.atomic_add(barrier + 1, 1, sem="acq_rel", scope="gpu") == programs - 1:
        tl.store(barrier, 0)
        tl.store(barrier + 1, 0)


@triton.jit(do_not_specialize=VARYING, do_not_specialize_on_alignment=["start"])
def begin_all(combines, matrices, entry_orders, start, vectors, squares):
    begin(combines + tl.program_id(0) * COMBINE_COLUMNS, matrices, entry_orders, start, vectors, squares)


@triton.jit(do_not_specialize=VARYING, do_not_specialize_on_alignment=["start"])
def apply_all(
    passes,
    step,
    iterations,
    pointers,
    matrices,
    vectors,
    sums,
    total_order,
    STORAGE: tl.constexpr,
    LAYOUTS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ALIGNED: tl.constexpr,
    INDEX: tl.constexpr,
):
    apply(
        passes + tl.program_id(0) * PASS_COLUMNS, step, iterations, pointers, matrices, vectors, sums, total_order,
        STORAGE, LAYOUTS, ROWS, COLUMNS, ALIGNED, INDEX,
    )  # fmt: skip


@triton.jit(do_not_specialize=VARYING, do_not_specialize_on_alignment=["start"])
def combine_all(combines, step, iterations, matrices, vectors, sums, squares, total_order, total_squares):
    item = combines + tl.program_id(0) * COMBINE_COLUMNS
    combine(item, step, iterations, matrices, vectors, sums, squares, total_order, total_squares)


@triton.jit(do_not_specialize=VARYING, do_not_specialize_on_alignment=["start"])
def finish_all(
    combines, iterations, pairs, matrices, entry_orders, values, kept, vectors, squares, total_order, total_squares
):
    finish(
        combines + tl.program_id(0) * COMBINE_COLUMNS, iterations, pairs, matrices, entry_orders, values, kept, vectors,
        squares, total_order, total_squares,
    )  # fmt: skip


@triton.jit
def sum_of_squares(matrix, squares):
    own = squares + tl.load(matrix + FIRST_SQUARES)
    count = tl.load(matrix + SQUARES)
    total = tl.zeros((SQUARES_AT_ONCE,), tl.float64)
    for first in range(0, count, SQUARES_AT_ONCE):
        which = first + tl.arange(0, SQUARES_AT_ONCE)
        total += tl.load(own + which, mask=which < count, other=0.0, cache_modifier=".cg")
    return tl.sum(total)


@triton.jit
def inverse_length(matrix, squares):
    """1 / |x| from the squares of its parts; 0 for a zero vector, which stays one. A NaN stays one too."""
    total = sum_of_squares(matrix, squares)
    return tl.where(total == 0.0, 0.0, tl.rsqrt(total))


@triton.jit
def length_of(matrix, squares):
    total = sum_of_squares(matrix, squares)
    return tl.where(total == 0.0, 0.0, total * tl.rsqrt(total))  # no division: its subroutine costs registers


@triton.jit
def input_of(step, iterations):
    """The place of the vector to which a step applies R: x_step, then p_m, which is x_m, down to p_2."""
    return tl.where(step <= iterations, step, 3 * iterations - step)


@triton.jit
def input_scale(matrix, squares, step, iterations, total_squares):
    """What takes the vector of this step to its length: adjoints are kept as they are."""
    place = tl.minimum(step, iterations)
    return tl.where(step <= iterations, inverse_length(matrix, squares + place * total_squares), 1.0)


@triton.jit
def begin(item, matrices, entry_orders, start, vectors, squares):
    """x_0, in the order of the matrix."""
    matrix = matrices + tl.load(item + COMBINE_MATRIX) * MATRIX_COLUMNS
    row = tl.load(item + COMBINE_ROW)
    order = tl.load(matrix + ORDER)
    own = tl.load(matrix + VECTOR_OFFSET)
    rows = row + tl.arange(0, COMBINED)
    inside = rows < order
    places = entries_in_caller_order(entry_orders, matrix, rows, order)
    x = tl.load(start + own + places, mask=inside, other=0.0).to(tl.float64)
    tl.store(vectors + own + rows, x, mask=inside)
    tl.store(squares + tl.load(matrix + FIRST_SQUARES) + row // COMBINED, tl.sum(x * x))


@triton.jit
def apply(
    item,
    step,
    iterations,
    pointers,
    matrices,
    vectors,
    sums,
    total_order,
    STORAGE: tl.constexpr,
    LAYOUTS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ALIGNED: tl.constexpr,
    INDEX: tl.constexpr,
):
    """W_b (W_b^T x) for a range of columns W_b, which are read twice while they are in a cache; x as it is kept."""
    matrix = matrices + tl.load(item + PASS_MATRIX) * MATRIX_COLUMNS
    layout = tl.load(item + PASS_LAYOUT)
    data = matrix_data(pointers, matrix, STORAGE)
    x = vectors + input_of(step, iterations) * total_order + tl.load(matrix + VECTOR_OFFSET)
    own_sums = sums + tl.load(matrix + SUMS_OFFSET) + tl.load(item + PASS_PART) * tl.load(matrix + ORDER)
    for LAYOUT in tl.static_range(3):
        if LAYOUTS & (1 << LAYOUT):
            if layout == LAYOUT:
                apply_in(item, matrix, data, x, own_sums, LAYOUT, ROWS, COLUMNS, ALIGNED, INDEX)


@triton.jit
def apply_in(
    item,
    matrix,
    data,
    x,
    sums,
    LAYOUT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ALIGNED: tl.constexpr,
    INDEX: tl.constexpr,
):
    order = tl.load(matrix + ORDER)
    order_stride = tl.load(matrix + ORDER_STRIDE)
    depth_stride = tl.load(matrix + DEPTH_STRIDE)
    begin = tl.load(item + PASS_BEGIN)
    end = tl.load(item + PASS_END)
    for depth in range(begin, end, COLUMNS):
        here = data + depth * depth_stride
        depths_left = left_of(end, depth, COLUMNS)
        products = tl.zeros((ROWS, COLUMNS), tl.float64)
        for row in range(0, order, ROWS):
            rows = row + tl.arange(0, ROWS)
            W = load_block(
                here + row * order_stride, left_of(order, row, ROWS), depths_left, order_stride, depth_stride,
                ROWS, COLUMNS, LAYOUT, ALIGNED, INDEX,
            )  # fmt: skip
            own_x = tl.load(x + rows, mask=rows < order, other=0.0, cache_modifier=".cg")
            products += W.to(tl.float64) * own_x[:, None]
        along_depth = tl.sum(products, axis=0)
        for row in range(0, order, ROWS):
            rows = row + tl.arange(0, ROWS)
            W = load_block(
                here + row * order_stride, left_of(order, row, ROWS), depths_left, order_stride, depth_stride,
                ROWS, COLUMNS, LAYOUT, ALIGNED, INDEX,
            )  # fmt: skip
            own_sums = tl.sum(W.to(tl.float64) * along_depth[None, :], axis=1)
            before = tl.load(sums + rows, mask=(rows < order) & (depth > begin), other=0.0)
            tl.store(sums + rows, before + own_sums, mask=rows < order)
        tl.debug_barrier()  # the next columns add to what was stored


@triton.jit
def combine(item, step, iterations, matrices, vectors, sums, squares, total_order, total_squares):
    """The next vector, from the parts of W (W^T x) in their order."""
    matrix = matrices + tl.load(item + COMBINE_MATRIX) * MATRIX_COLUMNS
    row = tl.load(item + COMBINE_ROW)
    order = tl.load(matrix + ORDER)
    parts = tl.load(matrix + PARTS)
    rows = row + tl.arange(0, COMBINED)
    inside = rows < order
    own_sums = sums + tl.load(matrix + SUMS_OFFSET)
    own_vectors = vectors + tl.load(matrix + VECTOR_OFFSET)

    added = tl.zeros((PARTS_AT_ONCE, COMBINED), tl.float64)
    for first in range(0, parts, PARTS_AT_ONCE):
        part = first + tl.arange(0, PARTS_AT_ONCE)
        added += tl.load(
            own_sums + part[:, None] * order + rows[None, :],
            mask=(part[:, None] < parts) & inside[None, :],
            other=0.0,
            cache_modifier=".cg",
        )
    place = input_of(step, iterations)
    x = tl.load(own_vectors + place * total_order + rows, mask=inside, other=0.0, cache_modifier=".cg")
    # Scaled after the difference: scaled before, a fused multiply-add leaves the rounding of x, where R x is zero.
    R_x = (tl.sum(added, axis=0) - x) * input_scale(matrix, squares, step, iterations, total_squares)
    if step < iterations:
        tl.store(own_vectors + (step + 1) * total_order + rows, R_x, mask=inside)
        own_squares = squares + (step + 1) * total_squares + tl.load(matrix + FIRST_SQUARES)
        tl.store(own_squares + row // COMBINED, tl.sum(tl.where(inside, R_x * R_x, 0.0)))
    else:
        i = 2 * iterations - step - 1  # this makes p_i
        inverse = inverse_length(matrix, squares + i * total_squares)
        if step == iterations:
            before = tl.load(own_vectors + i * total_order + rows, mask=inside, other=0.0, cache_modifier=".cg")
            sigma = length_of(matrix, squares + iterations * total_squares)
            R_x -= sigma * inverse * before
        p = R_x * inverse
        tl.store(own_vectors + (iterations + i) * total_order + rows, p, mask=inside)


@triton.jit
def finish(item, iterations, pairs, matrices, entry_orders, values, kept, vectors, squares, total_order, total_squares):
    """The value, and the pairs (p_i, x_(i-1)) from i = m on; a value of zero has no direction: its gradient is zero."""
    matrix_index = tl.load(item + COMBINE_MATRIX)
    matrix = matrices + matrix_index * MATRIX_COLUMNS
    row = tl.load(item + COMBINE_ROW)
    order = tl.load(matrix + ORDER)
    rows = row + tl.arange(0, COMBINED)
    inside = rows < order
    own = tl.load(matrix + VECTOR_OFFSET)
    sigma = length_of(matrix, squares + iterations * total_squares)
    inverse_sigma = inverse_length(matrix, squares + iterations * total_squares)
    if row == 0:
        tl.store(values + matrix_index, sigma.to(tl.float32))
    places = entries_in_caller_order(entry_orders, matrix, rows, order)
    for pair in range(0, pairs):
        i = iterations - pair
        left_place = tl.where(pair == 0, iterations, iterations + i)
        left = tl.load(vectors + left_place * total_order + own + rows, mask=inside, other=0.0, cache_modifier=".cg")
        left *= tl.where(pair == 0, inverse_sigma, 1.0)
        right = tl.load(vectors + (i - 1) * total_order + own + rows, mask=inside, other=0.0, cache_modifier=".cg")
        right *= inverse_length(matrix, squares + (i - 1) * total_squares)
        target = kept + 2 * pairs * own + 2 * pair * order + places
        tl.store(target, tl.where(sigma == 0.0, 0.0, left).to(tl.float32), mask=inside)
        tl.store(target + order, tl.where(sigma == 0.0, 0.0, right).to(tl.float32), mask=inside)
