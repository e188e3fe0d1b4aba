"""SRIP's power iteration for all matrices, in two launches for each application of R.

With x_i = R x_(i-1), normalized at every step, and s_i = |R x_(i-1)|, the value is s_m. The adjoints, each scaled by the
length that its partner was divided by, are p_m = x_m, p_(m-1) = (R p_m - s_m x_(m-1)) / s_(m-1), p_i = R p_(i+1) / s_i.
The gradient is the sum of (p_i x_(i-1)^T + x_(i-1) p_i^T) W over i: for i = m alone where vectors are constants.

Steps 0 to m-1 make x_1 to x_m, steps m to 2m-2 make p_(m-1) to p_1. Each is a pass over all matrices, W (W^T x) in parts
of the depth, and then the sums of the parts. In the workspace, x_i stands at place i, not yet divided by s_i, with its
squares in parts beside it; p_i stands at place m + i. R itself is never formed. `pairs` is how many (p_i, x_(i-1)) are
kept, from i = m on: m of them, 1 or none.

All arithmetic is in float64, which a pass that waits for memory has time for on data-center GPUs: R x is a difference of
nearly equal numbers, and so are the adjoints.
"""

import triton
import triton.language as tl

from ..plan import COMBINED_ROWS, HELD_SHAPES
from ..records import CombineItem, PassItem
from .blocks import STRIDED, entries_in_caller_order, load_block, load_matrix, load_row, weight_at

PASS = tl.constexpr(PassItem._fields)
COMBINE = tl.constexpr(CombineItem._fields)
COMBINED = tl.constexpr(COMBINED_ROWS)
HELD = tl.constexpr(HELD_SHAPES)
PARTS_AT_ONCE = tl.constexpr(32)
SQUARES_AT_ONCE = tl.constexpr(64)

# Counts vary from call to call, and a start vector may lie anywhere: one compilation serves all.
VARYING = {
    "do_not_specialize": ["step", "iterations", "pairs"],
    "do_not_specialize_on_alignment": ["start"],
}


@triton.jit
def vector_at(state, m, iterations, place):
    """A matrix has 2 m vectors in the workspace."""
    return state.vectors + 2 * iterations * m.vector_offset + place * m.order


@triton.jit
def squares_at(state, m, iterations, place):
    return state.squares + (iterations + 1) * m.first_square + place * m.squares


@triton.jit
def sum_of_squares(state, m, iterations, place):
    own = squares_at(state, m, iterations, place)
    total = tl.zeros((SQUARES_AT_ONCE,), tl.float64)
    for first in range(0, m.squares, SQUARES_AT_ONCE):
        which = first + tl.arange(0, SQUARES_AT_ONCE)
        total += tl.load(own + which, mask=which < m.squares, other=0.0)
    return tl.sum(total)


@triton.jit
def inverse_length(state, m, iterations, place):
    """1 / |x| from the squares of its parts; 0 for a zero vector, which stays one. A NaN stays one too."""
    total = sum_of_squares(state, m, iterations, place)
    return tl.where(total == 0.0, 0.0, tl.rsqrt(total))


@triton.jit
def length_of(state, m, iterations, place):
    total = sum_of_squares(state, m, iterations, place)
    return tl.where(total == 0.0, 0.0, total * tl.rsqrt(total))  # no division: its subroutine costs registers


@triton.jit
def input_of(step, iterations):
    """The place of the vector to which a step applies R: x_step, then p_m, which is x_m, down to p_2."""
    return tl.where(step <= iterations, step, 3 * iterations - step)


@triton.jit
def input_scale(state, m, step, iterations):
    """What takes the vector of this step to its length: adjoints are kept as they are."""
    return tl.where(step <= iterations, inverse_length(state, m, iterations, tl.minimum(step, iterations)), 1.0)


@triton.jit(**VARYING)
def begin_iteration(combines, tables, start, state, iterations):
    """x_0, in the order of the matrix."""
    item = CombineItem(*load_row(combines, tl.program_id(0), COMBINE))
    m = load_matrix(tables, item.matrix)
    rows = item.row + tl.arange(0, COMBINED)
    inside = rows < m.order
    places = entries_in_caller_order(tables, m, rows)
    x = tl.load(start + m.vector_offset + places, mask=inside, other=0.0).to(tl.float64)
    tl.store(vector_at(state, m, iterations, 0) + rows, x, mask=inside)
    tl.store(squares_at(state, m, iterations, 0) + item.row // COMBINED, tl.sum(x * x))


@triton.jit(**VARYING)
def apply_residuals(passes, tables, state, step, iterations, META: tl.constexpr):
    """W_b (W_b^T x) for a range of columns W_b; x as it is kept."""
    item = PassItem(*load_row(passes, tl.program_id(0), PASS))
    m = load_matrix(tables, item.matrix)
    W = weight_at(tables, m, META)
    x = vector_at(state, m, iterations, input_of(step, iterations))
    sums = state.sums + m.sums_offset + item.part * m.order
    for LAYOUT in tl.static_range(3):
        if META.LAYOUTS >> LAYOUT & 1:
            if m.layout == LAYOUT:
                for SHAPE in tl.static_range(HELD):
                    if META.COLUMNS << SHAPE >= META.ALIGNED and LAYOUT != STRIDED:
                        if item.shape == SHAPE:
                            apply_held(item, m, W, x, sums, META.ROWS >> SHAPE, META.COLUMNS << SHAPE, LAYOUT, META)
                if item.shape == HELD:
                    ROWS: tl.constexpr = META.ROWS // (4 if LAYOUT == STRIDED else 2)  # a pointer for each entry
                    apply_twice_read(item, m, W, x, sums, ROWS, META.COLUMNS * 2, LAYOUT, META)


@triton.jit
def apply_held(
    item, m, W, x, sums, ROWS: tl.constexpr, COLUMNS: tl.constexpr, LAYOUT: tl.constexpr, META: tl.constexpr
):
    """Of an order up to `ROWS`: a block of columns is read once, and stays in registers. While it is worked on, the next
    is on its way."""
    rows = tl.arange(0, ROWS)
    own_x = tl.load(x + rows, mask=rows < m.order, other=0.0)
    own_sums = tl.zeros((ROWS,), tl.float64)
    following = load_block(W, 0, item.begin, m.order, item.end, ROWS, COLUMNS, LAYOUT, META)
    for depth in range(item.begin, item.end, COLUMNS):
        block = following.to(tl.float64)
        following = load_block(W, 0, depth + COLUMNS, m.order, item.end, ROWS, COLUMNS, LAYOUT, META)
        along_depth = tl.sum(block * own_x[:, None], axis=0)
        own_sums += tl.sum(block * along_depth[None, :], axis=1)
    tl.store(sums + rows, own_sums, mask=rows < m.order)


@triton.jit
def apply_twice_read(
    item, m, W, x, sums, ROWS: tl.constexpr, COLUMNS: tl.constexpr, LAYOUT: tl.constexpr, META: tl.constexpr
):  # fmt: skip
    """Of any order: blocks of columns, so narrow that they are in a cache when they are read again."""
    for depth in range(item.begin, item.end, COLUMNS):
        products = tl.zeros((ROWS, COLUMNS), tl.float64)
        for row in range(0, m.order, ROWS):
            block = load_block(W, row, depth, m.order, item.end, ROWS, COLUMNS, LAYOUT, META).to(tl.float64)
            rows = row + tl.arange(0, ROWS)
            own_x = tl.load(x + rows, mask=rows < m.order, other=0.0)
            products += block * own_x[:, None]
        along_depth = tl.sum(products, axis=0)
        for row in range(0, m.order, ROWS):
            rows = row + tl.arange(0, ROWS)
            before = tl.load(sums + rows, mask=rows < tl.where(depth > item.begin, m.order, 0), other=0.0)
            block = load_block(W, row, depth, m.order, item.end, ROWS, COLUMNS, LAYOUT, META).to(tl.float64)
            tl.store(sums + rows, before + tl.sum(block * along_depth[None, :], axis=1), mask=rows < m.order)
        tl.debug_barrier()  # the next columns add to what was stored


@triton.jit(**VARYING)
def combine_sums(combines, tables, state, step, iterations):
    """The next vector, from the parts of W (W^T x) in their order."""
    item = CombineItem(*load_row(combines, tl.program_id(0), COMBINE))
    m = load_matrix(tables, item.matrix)
    rows = item.row + tl.arange(0, COMBINED)
    inside = rows < m.order
    own_sums = state.sums + m.sums_offset

    added = tl.zeros((PARTS_AT_ONCE, COMBINED), tl.float64)
    for first in range(0, m.parts, PARTS_AT_ONCE):
        part = first + tl.arange(0, PARTS_AT_ONCE)
        added += tl.load(
            own_sums + part[:, None] * m.order + rows[None, :],
            mask=(part[:, None] < m.parts) & inside[None, :],
            other=0.0,
        )
    x = load_vector(state, m, iterations, input_of(step, iterations), rows)
    # Scaled after the difference: scaled before, a fused multiply-add leaves the rounding of x, where R x is zero.
    R_x = (tl.sum(added, axis=0) - x) * input_scale(state, m, step, iterations)
    if step < iterations:
        tl.store(vector_at(state, m, iterations, step + 1) + rows, R_x, mask=inside)
        own_squares = squares_at(state, m, iterations, step + 1)
        tl.store(own_squares + item.row // COMBINED, tl.sum(tl.where(inside, R_x * R_x, 0.0)))
    else:
        i = 2 * iterations - step - 1  # this makes p_i
        inverse = inverse_length(state, m, iterations, i)
        if step == iterations:
            sigma = length_of(state, m, iterations, iterations)
            R_x -= sigma * inverse * load_vector(state, m, iterations, i, rows)
        tl.store(vector_at(state, m, iterations, iterations + i) + rows, R_x * inverse, mask=inside)


@triton.jit
def load_vector(state, m, iterations, place, rows):
    return tl.load(vector_at(state, m, iterations, place) + rows, mask=rows < m.order, other=0.0)


@triton.jit(**VARYING)
def finish_iteration(combines, tables, state, iterations, pairs):
    """The value, and the pairs (p_i, x_(i-1)) from i = m on; a value of zero has no direction: its gradient is zero."""
    item = CombineItem(*load_row(combines, tl.program_id(0), COMBINE))
    m = load_matrix(tables, item.matrix)
    rows = item.row + tl.arange(0, COMBINED)
    inside = rows < m.order
    sigma = length_of(state, m, iterations, iterations)
    inverse_sigma = inverse_length(state, m, iterations, iterations)
    if item.row == 0:
        tl.store(state.sigmas + item.matrix, sigma.to(tl.float32))
    places = entries_in_caller_order(tables, m, rows)
    for pair in range(0, pairs):
        i = iterations - pair
        left = load_vector(state, m, iterations, tl.where(pair == 0, iterations, iterations + i), rows)
        left *= tl.where(pair == 0, inverse_sigma, 1.0)
        right = load_vector(state, m, iterations, i - 1, rows)
        right *= inverse_length(state, m, iterations, i - 1)
        target = state.kept + 2 * pairs * m.vector_offset + 2 * pair * m.order + places
        tl.store(target, tl.where(sigma == 0.0, 0.0, left).to(tl.float32), mask=inside)
        tl.store(target + m.order, tl.where(sigma == 0.0, 0.0, right).to(tl.float32), mask=inside)
