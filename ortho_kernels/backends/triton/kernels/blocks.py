"""How a kernel finds its matrix and reads and writes blocks of it; how a program learns that it comes last."""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from ..matrices import Layout
from ..records import MatrixRow, StridedView

DEPTH_MAJOR = tl.constexpr(int(Layout.DEPTH_MAJOR))
ORDER_MAJOR = tl.constexpr(int(Layout.ORDER_MAJOR))
STRIDED = tl.constexpr(int(Layout.STRIDED))
# Fields are constants for triton's sake: compiled kernels are kept under a key that names constants, and no classes.
MATRIX = tl.constexpr(MatrixRow._fields)
VIEW = tl.constexpr(StridedView._fields)


class Strided(NamedTuple):
    """A matrix in memory: a pointer to its first entry, and its strides along order and depth."""

    data: Any
    order_stride: Any
    depth_stride: Any


@triton.jit
def load_row(table, index, FIELDS: tl.constexpr):
    """The fields of a row of a table. Those that are not used are not loaded."""
    row = table + index * len(FIELDS.value)
    fields = ()
    for i in tl.static_range(len(FIELDS.value)):
        fields = fields + (tl.load(row + i),)  # type: ignore[assignment] # noqa: RUF005
    return fields


@triton.jit
def load_matrix(tables, index):
    return MatrixRow(*load_row(tables.matrices, index, MATRIX))


@triton.jit
def weight_at(tables, m, META: tl.constexpr):
    """The numbers of a matrix: addresses of weights are in a tensor, since one launch takes any number of them."""
    data = tl.load(tables.addresses + m.weight).to(tl.pointer_type(META.STORAGE))
    return Strided(data + m.offset, m.order_stride, m.depth_stride)


@triton.jit
def load_view(views, index):
    return StridedView(*load_row(views, index, VIEW))


@triton.jit
def gradient_at(gradients, view):
    """The gradient of a matrix, seen from the first of the launch."""
    return Strided(gradients + view.offset, view.order_stride, view.depth_stride)


@triton.jit
def left_of(end, begin, BLOCK: tl.constexpr):
    """How much of a block that begins here lies before the end."""
    return tl.minimum(end - begin, BLOCK).to(tl.int32)


@triton.jit
def block_at(
    matrix, row, depth, rows_end, depths_end, ROWS: tl.constexpr, DEPTHS: tl.constexpr, LAYOUT: tl.constexpr,
    META: tl.constexpr,
):  # fmt: skip
    """Pointers to the block of `ROWS` x `DEPTHS` entries that begins at `row` and `depth`, and which lie before the ends.

    Offsets within a block are of the type `INDEX`, which the plan knows to be wide enough. What the layout promises is said
    of the pointers themselves: a hint about an argument is lost when the compiler inlines the function, and then no copy of
    16 bytes is made.
    """
    data = matrix.data + row * matrix.order_stride + depth * matrix.depth_stride
    rows = tl.arange(0, ROWS)[:, None]
    depths = tl.arange(0, DEPTHS)[None, :]
    inside = (rows < left_of(rows_end, row, ROWS)) & (depths < left_of(depths_end, depth, DEPTHS))
    order_stride = matrix.order_stride.to(META.INDEX)
    depth_stride = matrix.depth_stride.to(META.INDEX)
    if LAYOUT == DEPTH_MAJOR:
        pointers = tl.multiple_of(data + (rows.to(META.INDEX) * order_stride + depths), (1, 16))
        inside = tl.max_constancy(inside, (1, META.ALIGNED))
    elif LAYOUT == ORDER_MAJOR:
        pointers = tl.multiple_of(data + (rows + depths.to(META.INDEX) * depth_stride), (16, 1))
        inside = tl.max_constancy(inside, (META.ALIGNED, 1))
    else:
        pointers = data + (rows.to(META.INDEX) * order_stride + depths.to(META.INDEX) * depth_stride)
    return pointers, inside


@triton.jit
def load_block(
    matrix, row, depth, rows_end, depths_end, ROWS: tl.constexpr, DEPTHS: tl.constexpr, LAYOUT: tl.constexpr,
    META: tl.constexpr,
):  # fmt: skip
    """A block of a matrix, with zeros beyond the ends."""
    pointers, inside = block_at(matrix, row, depth, rows_end, depths_end, ROWS, DEPTHS, LAYOUT, META)
    return tl.load(pointers, mask=inside, other=0.0)


@triton.jit
def write_block(
    block, matrix, row, depth, rows_end, depths_end, accumulate, ROWS: tl.constexpr, DEPTHS: tl.constexpr,
    LAYOUT: tl.constexpr, META: tl.constexpr,
):  # fmt: skip
    """Writes what of a block lies before the ends, or adds it to what is there and rounds the sum, once."""
    pointers, inside = block_at(matrix, row, depth, rows_end, depths_end, ROWS, DEPTHS, LAYOUT, META)
    if accumulate:
        block += tl.load(pointers, mask=inside, other=0.0).to(tl.float32)
    tl.store(pointers, block.to(META.STORAGE), mask=inside)


@triton.jit
def entries_in_caller_order(tables, m, entries):
    """Where the caller keeps these entries of a vector."""
    known = tl.where(m.entry_order >= 0, m.order, 0)  # a block & a scalar is no mask to the interpreter of triton 3.9
    return tl.load(tables.entry_orders + m.entry_order + entries, mask=entries < known, other=entries)


@triton.jit
def arrives_last(counter, count):
    """True for the last of `count` programs that come here; what the others wrote before is visible to it.

    The counter is left at zero, ready for the next launch.
    """
    tl.debug_barrier()
    last = tl.atomic_add(counter, 1, sem="acq_rel", scope="gpu") == count - 1
    tl.debug_barrier()
    if last:
        tl.store(counter, 0)
    return last
