"""How a kernel finds its matrix and reads blocks of it; how the programs of a launch wait for each other."""

import triton
import triton.language as tl

from ..matrices import Layout
from ..plan import MATRIX

DEPTH_MAJOR = tl.constexpr(int(Layout.DEPTH_MAJOR))
ORDER_MAJOR = tl.constexpr(int(Layout.ORDER_MAJOR))
STRIDED = tl.constexpr(int(Layout.STRIDED))

MATRIX_COLUMNS = tl.constexpr(len(MATRIX))
WEIGHT = tl.constexpr(MATRIX.index("weight"))
OFFSET = tl.constexpr(MATRIX.index("offset"))
ORDER = tl.constexpr(MATRIX.index("order"))
DEPTH = tl.constexpr(MATRIX.index("depth"))
ORDER_STRIDE = tl.constexpr(MATRIX.index("order_stride"))
DEPTH_STRIDE = tl.constexpr(MATRIX.index("depth_stride"))
RESIDUAL_OFFSET = tl.constexpr(MATRIX.index("residual_offset"))
VECTOR_OFFSET = tl.constexpr(MATRIX.index("vector_offset"))
GRADIENT_OFFSET = tl.constexpr(MATRIX.index("gradient_offset"))
GRADIENT_ORDER_STRIDE = tl.constexpr(MATRIX.index("gradient_order_stride"))
GRADIENT_DEPTH_STRIDE = tl.constexpr(MATRIX.index("gradient_depth_stride"))
ENTRY_ORDER = tl.constexpr(MATRIX.index("entry_order"))
FIRST_GROUP = tl.constexpr(MATRIX.index("first_group"))
GROUPS = tl.constexpr(MATRIX.index("groups"))
SUMS_OFFSET = tl.constexpr(MATRIX.index("sums_offset"))
PARTS = tl.constexpr(MATRIX.index("parts"))
FIRST_SQUARES = tl.constexpr(MATRIX.index("first_squares"))
SQUARES = tl.constexpr(MATRIX.index("squares"))


@triton.jit
def matrix_data(pointers, matrix, STORAGE: tl.constexpr):
    """Where a matrix begins: addresses of weights are in a tensor, since one launch takes any number of them."""
    address = tl.load(pointers + tl.load(matrix + WEIGHT))
    return address.to(tl.pointer_type(STORAGE)) + tl.load(matrix + OFFSET)


@triton.jit
def offsets_of(vectors, depths, order_stride, depth_stride, LAYOUT: tl.constexpr, ALIGNED: tl.constexpr):
    """The offsets of a block of a matrix. What is known of the layout is said in a way that the compiler understands:
    otherwise no copy of 16 bytes is made."""
    if LAYOUT == DEPTH_MAJOR:
        result = vectors[:, None] * tl.multiple_of(order_stride, ALIGNED) + depths[None, :]
    elif LAYOUT == ORDER_MAJOR:
        result = vectors[:, None] + depths[None, :] * tl.multiple_of(depth_stride, ALIGNED)
    else:
        result = vectors[:, None] * order_stride + depths[None, :] * depth_stride
    return result


@triton.jit
def load_block(
    data, vectors, depths, order, depth_end, order_stride, depth_stride, LAYOUT: tl.constexpr, ALIGNED: tl.constexpr
):
    """The block (vectors, depths) of a matrix, with zeros beyond its order and beyond `depth_end`."""
    if LAYOUT == DEPTH_MAJOR:
        data = tl.multiple_of(data, 16)
        depth_end = tl.multiple_of(depth_end, ALIGNED)
    elif LAYOUT == ORDER_MAJOR:
        data = tl.multiple_of(data, 16)
        order = tl.multiple_of(order, ALIGNED)
    inside = (vectors[:, None] < order) & (depths[None, :] < depth_end)
    offsets = offsets_of(vectors, depths, order_stride, depth_stride, LAYOUT, ALIGNED)
    return tl.load(data + offsets, mask=inside, other=0.0)


@triton.jit
def store_block(
    data, vectors, depths, order, depth_end, order_stride, depth_stride, block, LAYOUT: tl.constexpr, ALIGNED: tl.constexpr
):
    """Writes the block (vectors, depths) of a matrix, but for what is beyond its order and beyond `depth_end`."""
    if LAYOUT == DEPTH_MAJOR:
        data = tl.multiple_of(data, 16)
        depth_end = tl.multiple_of(depth_end, ALIGNED)
    elif LAYOUT == ORDER_MAJOR:
        data = tl.multiple_of(data, 16)
        order = tl.multiple_of(order, ALIGNED)
    inside = (vectors[:, None] < order) & (depths[None, :] < depth_end)
    offsets = offsets_of(vectors, depths, order_stride, depth_stride, LAYOUT, ALIGNED)
    tl.store(data + offsets, block, mask=inside)


@triton.jit
def entries_in_caller_order(entry_orders, matrix, entries, order):
    """Where the caller keeps these entries of a vector."""
    begin = tl.load(matrix + ENTRY_ORDER)
    return tl.load(entry_orders + begin + entries, mask=(entries < order) & (begin >= 0), other=entries)


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


@triton.jit
def wait_for_all(counter, programs, times):
    """A barrier over all programs of a cooperative launch, the `times`-th of the launch."""
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="release", scope="gpu")
    while tl.atomic_add(counter, 0, sem="acquire", scope="gpu") < programs * times:
        pass
    tl.debug_barrier()
