"""R and its squares for all matrices: one program for each item of `plan.ResidualItems`.

Whoever brings the last part of a tile adds up all parts, in their order, and finishes the tile; whoever finishes the last
tile of a matrix adds up the squares. So the order of every sum is fixed, whichever program comes last.
"""

import triton
import triton.language as tl

from ..plan import NORM_ROWS, RESIDUAL_ITEM, SMALL_BLOCK, Kind
from .blocks import (
    DEPTH_STRIDE,
    FIRST_GROUP,
    GROUPS,
    MATRIX_COLUMNS,
    ORDER,
    ORDER_STRIDE,
    RESIDUAL_OFFSET,
    arrives_last,
    load_block,
    matrix_data,
)

ITEM_COLUMNS = tl.constexpr(len(RESIDUAL_ITEM))
MATRIX = tl.constexpr(RESIDUAL_ITEM.index("matrix"))
KIND = tl.constexpr(RESIDUAL_ITEM.index("kind"))
LAYOUT_OF = tl.constexpr(RESIDUAL_ITEM.index("layout"))
ROW = tl.constexpr(RESIDUAL_ITEM.index("row"))
COLUMN = tl.constexpr(RESIDUAL_ITEM.index("column"))
BEGIN = tl.constexpr(RESIDUAL_ITEM.index("begin"))
END = tl.constexpr(RESIDUAL_ITEM.index("end"))
PART = tl.constexpr(RESIDUAL_ITEM.index("part"))
PARTS = tl.constexpr(RESIDUAL_ITEM.index("parts"))
GROUP = tl.constexpr(RESIDUAL_ITEM.index("group"))
SLOT = tl.constexpr(RESIDUAL_ITEM.index("slot"))

TILE = tl.constexpr(int(Kind.TILE))
SMALL = tl.constexpr(int(Kind.SMALL))
NORMS = tl.constexpr(int(Kind.NORMS))
SMALL_SIDE = tl.constexpr(SMALL_BLOCK)
NORM_BLOCK = tl.constexpr(NORM_ROWS)
SUMMED_AT_ONCE = tl.constexpr(256)


@triton.jit
def residuals(
    pointers,
    matrices,
    items,
    values,
    kept,
    partial_sums,
    squares,
    tile_counters,
    matrix_counters,
    diagonal,
    off_diagonal,
    STORAGE: tl.constexpr,
    LAYOUTS: tl.constexpr,
    HAS_TILES: tl.constexpr,
    HAS_SMALL: tl.constexpr,
    HAS_NORMS: tl.constexpr,
    KEEP: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    ALIGNED: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """`LAYOUTS` is the bit set of the layouts among the items, and `HAS_...` says which kinds are: other code is left out."""
    item = items + tl.program_id(0).to(tl.int64) * ITEM_COLUMNS
    matrix_index = tl.load(item + MATRIX)
    matrix = matrices + matrix_index * MATRIX_COLUMNS
    kind = tl.load(item + KIND)
    layout = tl.load(item + LAYOUT_OF)
    group = tl.load(item + GROUP)
    order = tl.load(matrix + ORDER)
    data = matrix_data(pointers, matrix, STORAGE)
    own_kept = kept + tl.load(matrix + RESIDUAL_OFFSET)
    counter = tile_counters + group

    complete = False
    square = tl.zeros((), tl.float64)
    for LAYOUT in tl.static_range(3):
        if LAYOUTS & (1 << LAYOUT):
            if layout == LAYOUT:
                if HAS_TILES:
                    if kind == TILE:
                        sums = tile_sums(
                            data, item, matrix, order, LAYOUT, BLOCK, BLOCK_DEPTH, PRECISION, ALIGNED, UPCAST
                        )
                        entries = tl.arange(0, BLOCK)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
                        sums, complete = with_other_parts(sums, entries, BLOCK * BLOCK, item, partial_sums, counter)
                        if complete:
                            square = finish_tile(sums, item, own_kept, order, off_diagonal, KEEP, BLOCK)
                if HAS_SMALL:
                    if kind == SMALL:
                        small = small_sums(data, item, matrix, order, LAYOUT, ALIGNED)
                        places = tl.arange(0, SMALL_SIDE)[:, None] * SMALL_SIDE + tl.arange(0, SMALL_SIDE)[None, :]
                        small, complete = with_other_parts(
                            small, places, SMALL_SIDE * SMALL_SIDE, item, partial_sums, counter
                        )
                        if complete:
                            square = finish_small(small, item, own_kept, order, diagonal, off_diagonal, KEEP)
                if HAS_NORMS:
                    if kind == NORMS:
                        norms = squared_lengths(data, item, matrix, order, LAYOUT, BLOCK_DEPTH, ALIGNED)
                        norms, complete = with_other_parts(
                            norms, tl.arange(0, NORM_BLOCK), NORM_BLOCK, item, partial_sums, counter
                        )
                        if complete:
                            square = finish_norms(norms, item, own_kept, order, diagonal, KEEP)

    if complete:
        tl.store(squares + group, square)
        groups = tl.load(matrix + GROUPS)
        if arrives_last(matrix_counters + matrix_index, groups):
            own_squares = squares + tl.load(matrix + FIRST_GROUP)
            total = tl.zeros((SUMMED_AT_ONCE,), tl.float64)
            for first in range(0, groups, SUMMED_AT_ONCE):
                which = first + tl.arange(0, SUMMED_AT_ONCE)
                total += tl.load(own_squares + which, mask=which < groups, other=0.0, cache_modifier=".cg")
            tl.store(values + matrix_index, tl.sum(total).to(tl.float32))


@triton.jit
def with_other_parts(sums, entries, SIZE: tl.constexpr, item, partial_sums, counter):
    """The sums of all parts of a tile, in their order, and True for whoever comes last; the others are done."""
    parts = tl.load(item + PARTS)
    complete = parts == 1
    if parts > 1:
        kept_parts = (partial_sums + tl.load(item + SLOT)).to(tl.pointer_type(sums.dtype))
        tl.store(kept_parts + tl.load(item + PART) * SIZE + entries, sums)
        complete = arrives_last(counter, parts)
        if complete:
            sums = tl.zeros_like(sums)
            for part in range(0, parts):
                sums += tl.load(kept_parts + part * SIZE + entries, cache_modifier=".cg")
    return sums, complete


# The Gram of a block of vectors with another, for a range of the depth


@triton.jit
def tile_sums(
    data,
    item,
    matrix,
    order,
    LAYOUT: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    ALIGNED: tl.constexpr,
    UPCAST: tl.constexpr,
):
    order_stride = tl.load(matrix + ORDER_STRIDE)
    depth_stride = tl.load(matrix + DEPTH_STRIDE)
    end = tl.load(item + END)
    rows = tl.multiple_of(tl.load(item + ROW), BLOCK) + tl.arange(0, BLOCK)
    columns = tl.multiple_of(tl.load(item + COLUMN), BLOCK) + tl.arange(0, BLOCK)
    sums = tl.zeros((BLOCK, BLOCK), tl.float32)
    for depth in range(tl.multiple_of(tl.load(item + BEGIN), BLOCK_DEPTH), end, BLOCK_DEPTH):
        depths = depth + tl.arange(0, BLOCK_DEPTH)
        left = load_block(data, rows, depths, order, end, order_stride, depth_stride, LAYOUT, ALIGNED)
        right = load_block(data, columns, depths, order, end, order_stride, depth_stride, LAYOUT, ALIGNED)
        if UPCAST:
            left = left.to(tl.float32)
            right = right.to(tl.float32)
        # Tensor cores truncate what they add to a running sum, a bias that grows with the depth and that R, a difference
        # of nearly equal numbers, would show. So they form short sums only, added here with rounding (Ootomo and Yokota,
        # "Recovering single precision accuracy from Tensor Cores", 2022); the limit keeps the compiler from fusing both.
        sums += tl.dot(left, tl.trans(right), input_precision=PRECISION, max_num_imprecise_acc=BLOCK_DEPTH)
    return sums


@triton.jit
def small_sums(data, item, matrix, order, LAYOUT: tl.constexpr, ALIGNED: tl.constexpr):
    order_stride = tl.load(matrix + ORDER_STRIDE)
    depth_stride = tl.load(matrix + DEPTH_STRIDE)
    end = tl.load(item + END)
    rows = tl.multiple_of(tl.load(item + ROW), SMALL_SIDE) + tl.arange(0, SMALL_SIDE)
    columns = tl.multiple_of(tl.load(item + COLUMN), SMALL_SIDE) + tl.arange(0, SMALL_SIDE)
    sums = tl.zeros((SMALL_SIDE, SMALL_SIDE), tl.float64)
    for depth in range(tl.multiple_of(tl.load(item + BEGIN), SMALL_SIDE), end, SMALL_SIDE):
        depths = depth + tl.arange(0, SMALL_SIDE)
        left = load_block(data, rows, depths, order, end, order_stride, depth_stride, LAYOUT, ALIGNED)
        right = load_block(data, columns, depths, order, end, order_stride, depth_stride, LAYOUT, ALIGNED)
        sums = tl.dot(left.to(tl.float64), tl.trans(right.to(tl.float64)), sums, out_dtype=tl.float64)
    return sums


@triton.jit
def squared_lengths(
    data, item, matrix, order, LAYOUT: tl.constexpr, BLOCK_DEPTH: tl.constexpr, ALIGNED: tl.constexpr
):
    order_stride = tl.load(matrix + ORDER_STRIDE)
    depth_stride = tl.load(matrix + DEPTH_STRIDE)
    end = tl.load(item + END)
    rows = tl.multiple_of(tl.load(item + ROW), NORM_BLOCK) + tl.arange(0, NORM_BLOCK)
    sums = tl.zeros((NORM_BLOCK, BLOCK_DEPTH), tl.float64)
    for depth in range(tl.multiple_of(tl.load(item + BEGIN), BLOCK_DEPTH), end, BLOCK_DEPTH):
        depths = depth + tl.arange(0, BLOCK_DEPTH)
        block = load_block(data, rows, depths, order, end, order_stride, depth_stride, LAYOUT, ALIGNED).to(tl.float64)
        sums += block * block
    return tl.sum(sums, axis=1)


# A finished block of the Gram: the identity is taken away, entries are kept, what they count is returned


@triton.jit
def finish_tile(sums, item, kept, order, off_diagonal, KEEP: tl.constexpr, BLOCK: tl.constexpr):
    rows = tl.load(item + ROW) + tl.arange(0, BLOCK)
    columns = tl.load(item + COLUMN) + tl.arange(0, BLOCK)
    below = (columns[None, :] < rows[:, None]) & (rows[:, None] < order)
    R = tl.where(below, sums, 0.0)
    if KEEP:
        triangle = rows * (rows + 1) // 2
        tl.store(kept + triangle[:, None] + columns[None, :], R * off_diagonal, mask=below)
    return 2.0 * off_diagonal * tl.sum(R * R).to(tl.float64)


@triton.jit
def finish_small(sums, item, kept, order, diagonal, off_diagonal, KEEP: tl.constexpr):
    rows = tl.load(item + ROW) + tl.arange(0, SMALL_SIDE)
    columns = tl.load(item + COLUMN) + tl.arange(0, SMALL_SIDE)
    on = rows[:, None] == columns[None, :]
    inside = (columns[None, :] <= rows[:, None]) & (rows[:, None] < order)
    R = tl.where(inside, tl.where(on, sums - 1.0, sums), 0.0)
    if KEEP:
        triangle = rows * (rows + 1) // 2
        weighted = R * tl.where(on, diagonal, off_diagonal)
        tl.store(kept + triangle[:, None] + columns[None, :], weighted.to(tl.float32), mask=inside)
    return tl.sum(R * R * tl.where(on, diagonal, 2.0 * off_diagonal))


@triton.jit
def finish_norms(norms, item, kept, order, diagonal, KEEP: tl.constexpr):
    rows = tl.load(item + ROW) + tl.arange(0, NORM_BLOCK)
    R = tl.where(rows < order, norms - 1.0, 0.0)
    if KEEP:
        tl.store(kept + rows * (rows + 1) // 2 + rows, (R * diagonal).to(tl.float32), mask=rows < order)
    return diagonal * tl.sum(R * R)
