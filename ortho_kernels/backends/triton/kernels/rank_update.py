"""The gradient of SRIP, f * sum over pairs of (p x^T + x p^T) W with a factor f for each matrix: one program for each block
of the depth.

W is read once: with all vectors as the rows of V, and V' the same with each vector in its partner's place, the gradient is
V'^T (V W).
"""

import triton
import triton.language as tl

from ..records import UpdateItem
from .blocks import (
    entries_in_caller_order,
    gradient_at,
    load_block,
    load_matrix,
    load_row,
    load_view,
    weight_at,
    write_block,
)

ITEM = tl.constexpr(UpdateItem._fields)


@triton.jit(do_not_specialize=["pairs", "accumulate"], do_not_specialize_on_alignment=["factors", "kept", "gradients"])
def rank_updates(tables, items, factors, kept, gradients, gradient_views, pairs, accumulate, META: tl.constexpr):
    """`VECTORS`, a power of two, is at least 2 pairs, and 16, the least that tensor cores multiply."""
    item = UpdateItem(*load_row(items, tl.program_id(0), ITEM))
    m = load_matrix(tables, item.matrix)
    W = weight_at(tables, m, META)
    view = load_view(gradient_views, item.matrix)
    gradient = gradient_at(gradients, view)
    vectors = kept + 2 * pairs * m.vector_offset
    scale = tl.load(factors + item.matrix)
    for LAYOUT in tl.static_range(3):
        if META.LAYOUTS >> LAYOUT & 1:
            if view.layout == LAYOUT:
                V_W = products(item, tables, m, W, vectors, pairs, LAYOUT, META)
                partner = tl.arange(0, META.VECTORS) ^ 1
                for row in range(0, m.order, META.ROWS):
                    rows = row + tl.arange(0, META.ROWS)
                    places = entries_in_caller_order(tables, m, rows)
                    V = vectors_at(vectors, m, pairs, partner[None, :], rows[:, None], places[:, None])
                    update = scale * tl.dot(V, V_W, input_precision=META.PRECISION)
                    write_block(
                        update, gradient, row, item.begin, m.order, m.depth, accumulate,
                        META.ROWS, META.COLUMNS, LAYOUT, META,
                    )  # fmt: skip


@triton.jit
def products(item, tables, m, W, vectors, pairs, LAYOUT: tl.constexpr, META: tl.constexpr):
    """V W for a block of the depth."""
    which = tl.arange(0, META.VECTORS)
    V_W = tl.zeros((META.VECTORS, META.COLUMNS), tl.float32)
    for row in range(0, m.order, META.ROWS):
        rows = row + tl.arange(0, META.ROWS)
        places = entries_in_caller_order(tables, m, rows)
        block = load_block(W, row, item.begin, m.order, m.depth, META.ROWS, META.COLUMNS, LAYOUT, META)
        V = vectors_at(vectors, m, pairs, which[:, None], rows[None, :], places[None, :])
        V_W = tl.dot(V, block.to(tl.float32), V_W, input_precision=META.PRECISION)
    return V_W


@triton.jit
def vectors_at(vectors, m, pairs, which, rows, places):
    """Entries of some of the vectors, with zeros beyond the last and beyond the order."""
    inside = (which < 2 * pairs) & (rows < m.order)
    return tl.load(vectors + which * m.order + places, mask=inside, other=0.0)
