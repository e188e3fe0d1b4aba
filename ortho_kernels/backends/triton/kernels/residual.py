"""R and its squares for all matrices: one program for each item of `plan.ResidualItems`.

Whoever brings the last part of a block adds up all parts, in their order, and finishes the block; whoever finishes the last
block of a matrix adds up the squares. So the order of every sum is fixed, whichever program comes last.
"""

import triton
import triton.language as tl

from ..plan import NORM_ROWS, TINY_BLOCK_DEPTH, TINY_ORDER, Kind
from ..records import ResidualItem
from .blocks import arrives_last, left_of, load_block, load_matrix, load_row, weight_at
from .parts import short_product

ITEM = tl.constexpr(ResidualItem._fields)
TILE = tl.constexpr(int(Kind.TILE))
TINY = tl.constexpr(int(Kind.TINY))
NORMS = tl.constexpr(int(Kind.NORMS))
TINY_ROWS = tl.constexpr(TINY_ORDER)
TINY_DEPTH = tl.constexpr(TINY_BLOCK_DEPTH)
NORM_BLOCK = tl.constexpr(NORM_ROWS)
SUMMED_AT_ONCE = tl.constexpr(256)


@triton.jit
def residuals(
    tables, items, values, kept, partial_sums, squares, block_counters, matrix_counters, diagonal, off_diagonal,
    META: tl.constexpr,
):  # fmt: skip
    """`LAYOUTS` is the bit set of the layouts among the matrices, `KINDS` that of the kinds: other code is left out."""
    item = ResidualItem(*load_row(items, tl.program_id(0), ITEM))
    m = load_matrix(tables, item.matrix)
    W = weight_at(tables, m, META)
    own_kept = kept + m.residual_offset
    counter = block_counters + item.block

    complete = False
    square = tl.zeros((), tl.float64)
    for LAYOUT in tl.static_range(3):
        if META.LAYOUTS >> LAYOUT & 1:
            if m.layout == LAYOUT:
                if META.KINDS >> TILE & 1:
                    if item.kind == TILE:
                        sums = tile_sums(W, item, m, LAYOUT, META)
                        entries = tl.arange(0, META.BLOCK)[:, None] * META.BLOCK + tl.arange(0, META.BLOCK)[None, :]
                        sums, complete = with_other_parts(
                            sums, entries, META.BLOCK * META.BLOCK, item, partial_sums, counter
                        )
                        if complete:
                            square = finish_tile(sums, item, own_kept, m.order, off_diagonal, META)
                if META.KINDS >> TINY & 1:
                    if item.kind == TINY:
                        tiny = tiny_sums(W, item, m, LAYOUT, META)
                        places = tl.arange(0, TINY_ROWS)[:, None] * TINY_ROWS + tl.arange(0, TINY_ROWS)[None, :]
                        tiny, complete = with_other_parts(
                            tiny, places, TINY_ROWS * TINY_ROWS, item, partial_sums, counter
                        )
                        if complete:
                            square = finish_tiny(tiny, own_kept, m.order, diagonal, off_diagonal, META)
                if META.KINDS >> NORMS & 1:
                    if item.kind == NORMS:
                        norms = squared_lengths(W, item, m, LAYOUT, META)
                        norms, complete = with_other_parts(
                            norms, tl.arange(0, NORM_BLOCK), NORM_BLOCK, item, partial_sums, counter
                        )
                        if complete:
                            square = finish_norms(norms, item, own_kept, m.order, diagonal, META)

    if complete:
        tl.store(squares + item.block, square)
        if arrives_last(matrix_counters + item.matrix, m.blocks):
            own_squares = squares + m.first_block
            total = tl.zeros((SUMMED_AT_ONCE,), tl.float64)
            for first in range(0, m.blocks, SUMMED_AT_ONCE):
                which = first + tl.arange(0, SUMMED_AT_ONCE)
                total += tl.load(own_squares + which, mask=which < m.blocks, other=0.0, cache_modifier=".cg")
            tl.store(values + item.matrix, tl.sum(total).to(tl.float32))


@triton.jit
def with_other_parts(sums, entries, SIZE: tl.constexpr, item, partial_sums, counter):
    """The sums of all parts of a block, in their order, and True for whoever comes last; the others are done."""
    complete = item.parts == 1
    if item.parts > 1:
        kept_parts = (partial_sums + item.slot).to(tl.pointer_type(sums.dtype))
        tl.store(kept_parts + item.part * SIZE + entries, sums)
        complete = arrives_last(counter, item.parts)
        if complete:
            sums = tl.zeros_like(sums)
            for part in range(0, item.parts):
                sums += tl.load(kept_parts + part * SIZE + entries, cache_modifier=".cg")
    return sums, complete


# The Gram of a block of vectors with another, for a range of the depth


@triton.jit
def tile_sums(W, item, m, LAYOUT: tl.constexpr, META: tl.constexpr):
    sums = tl.zeros((META.BLOCK, META.BLOCK), tl.float32)
    for depth in range(item.begin, item.end, META.BLOCK_DEPTH):
        left = load_block(W, item.row, depth, m.order, item.end, META.BLOCK, META.BLOCK_DEPTH, LAYOUT, META)
        right = load_block(W, item.column, depth, m.order, item.end, META.BLOCK, META.BLOCK_DEPTH, LAYOUT, META)
        # Tensor cores truncate what they add to a running sum, a bias that grows with the depth and that R, a difference
        # of nearly equal numbers, would show. So they form short sums only, added here with rounding (Ootomo and Yokota,
        # "Recovering single precision accuracy from Tensor Cores", 2022).
        sums += short_product(left, tl.trans(right), META.PRECISION, META.BLOCK_DEPTH, META.UPCAST)
    return sums


@triton.jit
def tiny_sums(W, item, m, LAYOUT: tl.constexpr, META: tl.constexpr):
    sums = tl.zeros((TINY_ROWS, TINY_ROWS, TINY_DEPTH), tl.float64)
    for depth in range(item.begin, item.end, TINY_DEPTH):
        block = load_block(W, item.row, depth, m.order, item.end, TINY_ROWS, TINY_DEPTH, LAYOUT, META).to(tl.float64)
        sums += block[:, None, :] * block[None, :, :]
    return tl.sum(sums, axis=2)


@triton.jit
def squared_lengths(W, item, m, LAYOUT: tl.constexpr, META: tl.constexpr):
    sums = tl.zeros((NORM_BLOCK, META.BLOCK_DEPTH), tl.float64)
    for depth in range(item.begin, item.end, META.BLOCK_DEPTH):
        block = load_block(W, item.row, depth, m.order, item.end, NORM_BLOCK, META.BLOCK_DEPTH, LAYOUT, META)
        sums += block.to(tl.float64) * block.to(tl.float64)
    return tl.sum(sums, axis=1)


# A finished block of the Gram: the identity is taken away, entries are kept, what they count is returned


@triton.jit
def packed_row(row):
    """Where a row begins in the packed lower triangle."""
    return row * (row + 1) // 2


@triton.jit
def finish_tile(sums, item, kept, order, off_diagonal, META: tl.constexpr):
    rows = tl.arange(0, META.BLOCK)[:, None]
    columns = tl.arange(0, META.BLOCK)[None, :]
    below = (columns < rows + (item.row - item.column).to(tl.int32)) & (rows < left_of(order, item.row, META.BLOCK))
    R = tl.where(below, sums, 0.0)
    if META.KEEP:
        offsets = rows * item.row.to(tl.int32) + packed_row(rows) + columns
        tl.store(kept + (packed_row(item.row) + item.column) + offsets, R * off_diagonal, mask=below)
    return 2.0 * off_diagonal * tl.sum(R * R).to(tl.float64)


@triton.jit
def finish_tiny(sums, kept, order, diagonal, off_diagonal, META: tl.constexpr):
    rows = tl.arange(0, TINY_ROWS)[:, None]
    columns = tl.arange(0, TINY_ROWS)[None, :]
    on = rows == columns
    inside = (columns <= rows) & (rows < left_of(order, 0, TINY_ROWS))
    R = tl.where(inside, tl.where(on, sums - 1.0, sums), 0.0)
    if META.KEEP:
        weighted = R * tl.where(on, diagonal, off_diagonal)
        tl.store(kept + packed_row(rows) + columns, weighted.to(tl.float32), mask=inside)
    return tl.sum(R * R * tl.where(on, diagonal, 2.0 * off_diagonal))


@triton.jit
def finish_norms(norms, item, kept, order, diagonal, META: tl.constexpr):
    rows = item.row + tl.arange(0, NORM_BLOCK)
    R = tl.where(rows < order, norms - 1.0, 0.0)
    if META.KEEP:
        tl.store(kept + packed_row(rows) + rows, (R * diagonal).to(tl.float32), mask=rows < order)
    return diagonal * tl.sum(R * R)
