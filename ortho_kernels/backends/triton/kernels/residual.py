"""R and its squares for all matrices: one program for each item of `plan.ResidualItems`.

Whoever brings the last part of a tile adds up all parts, in their order, and finishes the tile; whoever finishes the last
tile of a matrix adds up the squares. So the order of every sum is fixed, whichever program comes last.
"""

import triton
import triton.language as tl

from ..plan import NORM_ROWS, RESIDUAL_ITEM, TINY_BLOCK_DEPTH, TINY_ORDER, Kind
from .blocks import (
    DEPTH_STRIDE,
    FIRST_GROUP,
    GROUPS,
    MATRIX_COLUMNS,
    ORDER,
    ORDER_STRIDE,
    RESIDUAL_OFFSET,
    arrives_last,
    left_of,
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
TINY_KIND = tl.constexpr(int(Kind.TINY))
NORMS = tl.constexpr(int(Kind.NORMS))
TINY = tl.constexpr(TINY_ORDER)
TINY_DEPTH = tl.constexpr(TINY_BLOCK_DEPTH)
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
    HAS_TINY: tl.constexpr,
    HAS_NORMS: tl.constexpr,
    KEEP: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    ALIGNED: tl.constexpr,
    INDEX: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """`LAYOUTS` is the bit set of the layouts among the items, `HAS_...` their kinds: other code is left out."""
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
                            data, item, matrix, order, LAYOUT, BLOCK, BLOCK_DEPTH, PRECISION, ALIGNED, INDEX, UPCAST
                        )
                        entries = tl.arange(0, BLOCK)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
                        sums, complete = with_other_parts(sums, entries, BLOCK * BLOCK, item, partial_sums, counter)
                        if complete:
                            square = finish_tile(sums, item, own_kept, order, off_diagonal, KEEP, BLOCK)
                if HAS_TINY:
                    if kind == TINY_KIND:
                        tiny = tiny_sums(data, item, matrix, order, LAYOUT, ALIGNED, INDEX)
                        places = tl.arange(0, TINY)[:, None] * TINY + tl.arange(0, TINY)[None, :]
                        tiny, complete = with_other_parts(tiny, places, TINY * TINY, item, partial_sums, counter)
                        if complete:
                            square = finish_tiny(tiny, own_kept, order, diagonal, off_diagonal, KEEP)
                if HAS_NORMS:
                    if kind == NORMS:
                        norms = squared_lengths(data, item, matrix, order, LAYOUT, BLOCK_DEPTH, ALIGNED, INDEX)
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
    INDEX: tl.constexpr,
    UPCAST: tl.constexpr,
):
    order_stride = tl.load(matrix + ORDER_STRIDE)
    depth_stride = tl.load(matrix + DEPTH_STRIDE)
    end = tl.load(item + END)
    row = tl.load(item + ROW)
    column = tl.load(item + COLUMN)
    rows_left = left_of(order, row, BLOCK)
    columns_left = left_of(order, column, BLOCK)
    sums = tl.zeros((BLOCK, BLOCK), tl.float32)
    for depth in range(tl.load(item + BEGIN), end, BLOCK_DEPTH):
        here = data + depth * depth_stride
        depths_left = left_of(end, depth, BLOCK_DEPTH)
        left = load_block(
            here + row * order_stride, rows_left, depths_left, order_stride, depth_stride,
            BLOCK, BLOCK_DEPTH, LAYOUT, ALIGNED, INDEX,
        )  # fmt: skip
        right = load_block(
            here + column * order_stride, columns_left, depths_left, order_stride, depth_stride,
            BLOCK, BLOCK_DEPTH, LAYOUT, ALIGNED, INDEX,
        )  # fmt: skip
        if UPCAST:
            left = left.to(tl.float32)
            right = right.to(tl.float32)
        # Tensor cores truncate what they add to a running sum, a bias that grows with the depth and that R, a difference
        # of nearly equal numbers, would show. So they form short sums only, added here with rounding (Ootomo and Yokota,
        # "Recovering single precision accuracy from Tensor Cores", 2022); the limit keeps the compiler from fusing both.
        sums += tl.dot(left, tl.trans(right), input_precision=PRECISION, max_num_imprecise_acc=BLOCK_DEPTH)
    return sums


@triton.jit
def tiny_sums(data, item, matrix, order, LAYOUT: tl.constexpr, ALIGNED: tl.constexpr, INDEX: tl.constexpr):
    order_stride = tl.load(matrix + ORDER_STRIDE)
    depth_stride = tl.load(matrix + DEPTH_STRIDE)
    end = tl.load(item + END)
    sums = tl.zeros((TINY, TINY, TINY_DEPTH), tl.float64)
    for depth in range(tl.load(item + BEGIN), end, TINY_DEPTH):
        block = load_block(
            data + depth * depth_stride, left_of(order, 0, TINY), left_of(end, depth, TINY_DEPTH),
            order_stride, depth_stride, TINY, TINY_DEPTH, LAYOUT, ALIGNED, INDEX,
        ).to(tl.float64)  # fmt: skip
        sums += block[:, None, :] * block[None, :, :]
    return tl.sum(sums, axis=2)


@triton.jit
def squared_lengths(
    data,
    item,
    matrix,
    order,
    LAYOUT: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
    ALIGNED: tl.constexpr,
    INDEX: tl.constexpr,
):
    order_stride = tl.load(matrix + ORDER_STRIDE)
    depth_stride = tl.load(matrix + DEPTH_STRIDE)
    end = tl.load(item + END)
    row = tl.load(item + ROW)
    rows_left = left_of(order, row, NORM_BLOCK)
    sums = tl.zeros((NORM_BLOCK, BLOCK_DEPTH), tl.float64)
    for depth in range(tl.load(item + BEGIN), end, BLOCK_DEPTH):
        block = load_block(
            data + row * order_stride + depth * depth_stride, rows_left, left_of(end, depth, BLOCK_DEPTH),
            order_stride, depth_stride, NORM_BLOCK, BLOCK_DEPTH, LAYOUT, ALIGNED, INDEX,
        ).to(tl.float64)  # fmt: skip
        sums += block * block
    return tl.sum(sums, axis=1)


# A finished block of the Gram: the identity is taken away, entries are kept, what they count is returned


@triton.jit
def packed_row(row):
    """Where a row begins in the packed lower triangle."""
    return row * (row + 1) // 2


@triton.jit
def finish_tile(sums, item, kept, order, off_diagonal, KEEP: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.load(item + ROW)
    column = tl.load(item + COLUMN)
    rows = tl.arange(0, BLOCK)[:, None]
    columns = tl.arange(0, BLOCK)[None, :]
    below = (columns < rows + (row - column).to(tl.int32)) & (rows < left_of(order, row, BLOCK))
    R = tl.where(below, sums, 0.0)
    if KEEP:
        offsets = rows * row.to(tl.int32) + packed_row(rows) + columns
        tl.store(kept + (packed_row(row) + column) + offsets, R * off_diagonal, mask=below)
    return 2.0 * off_diagonal * tl.sum(R * R).to(tl.float64)


@triton.jit
def finish_tiny(sums, kept, order, diagonal, off_diagonal, KEEP: tl.constexpr):
    rows = tl.arange(0, TINY)[:, None]
    columns = tl.arange(0, TINY)[None, :]
    on = rows == columns
    inside = (columns <= rows) & (rows < left_of(order, 0, TINY))
    R = tl.where(inside, tl.where(on, sums - 1.0, sums), 0.0)
    if KEEP:
        weighted = R * tl.where(on, diagonal, off_diagonal)
        tl.store(kept + packed_row(rows) + columns, weighted.to(tl.float32), mask=inside)
    return tl.sum(R * R * tl.where(on, diagonal, 2.0 * off_diagonal))


@triton.jit
def finish_norms(norms, item, kept, order, diagonal, KEEP: tl.constexpr):
    rows = tl.load(item + ROW) + tl.arange(0, NORM_BLOCK)
    R = tl.where(rows < order, norms - 1.0, 0.0)
    if KEEP:
        tl.store(kept + packed_row(rows) + rows, (R * diagonal).to(tl.float32), mask=rows < order)
    return diagonal * tl.sum(R * R)
