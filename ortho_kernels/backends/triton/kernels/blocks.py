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
def left_of(end, begin, BLOCK: tl.constexpr):
    """How much of a block that begins here lies before the end."""
    return tl.minimum(end - begin, BLOCK).to(tl.int32)


@triton.jit
def block_at(
    data,
    vectors_left,
    depths_left,
    order_stride,
    depth_stride,
    VECTORS: tl.constexpr,
    DEPTHS: tl.constexpr,
    LAYOUT: tl.constexpr,
    ALIGNED: tl.constexpr,
    INDEX: tl.constexpr,
):
    """Pointers to a block of `VECTORS` x `DEPTHS` entries that begins at `data`, and which of them exist.

    Offsets within a block are of the type `INDEX`, which the plan knows to be wide enough. What the layout promises is said
    of the pointers themselves: a hint about an argument is lost when the compiler inlines the function, and then no copy of
    16 bytes is made.
    """
    vectors = tl.arange(0, VECTORS)[:, None]
    depths = tl.arange(0, DEPTHS)[None, :]
    inside = (vectors < vectors_left) & (depths < depths_left)
    if LAYOUT == DEPTH_MAJOR:
        pointers = tl.multiple_of(data + (vectors.to(INDEX) * order_stride.to(INDEX) + depths), (1, 16))
        inside = tl.max_constancy(inside, (1, ALIGNED))
    elif LAYOUT == ORDER_MAJOR:
        pointers = tl.multiple_of(data + (vectors + depths.to(INDEX) * depth_stride.to(INDEX)), (16, 1))
        inside = tl.max_constancy(inside, (ALIGNED, 1))
    else:
        pointers = data + (vectors.to(INDEX) * order_stride.to(INDEX) + depths.to(INDEX) * depth_stride.to(INDEX))
    return pointers, inside


@triton.jit
def load_block(
    data,
    vectors_left,
    depths_left,
    order_stride,
    depth_stride,
    VECTORS: tl.constexpr,
    DEPTHS: tl.constexpr,
    LAYOUT: tl.constexpr,
    ALIGNED: tl.constexpr,
    INDEX: tl.constexpr,
):
    """A block of a matrix, with zeros where it goes beyond what is left."""
    pointers, inside = block_at(
        data, vectors_left, depths_left, order_stride, depth_stride, VECTORS, DEPTHS, LAYOUT, ALIGNED, INDEX
    )
    return tl.load(pointers, mask=inside, other=0.0)


@triton.jit
def store_block(
    block,
    data,
    vectors_left,
    depths_left,
    order_stride,
    depth_stride,
    VECTORS: tl.constexpr,
    DEPTHS: tl.constexpr,
    LAYOUT: tl.constexpr,
    ALIGNED: tl.constexpr,
    INDEX: tl.constexpr,
):
    """Writes a block of a matrix, but for what goes beyond what is left."""
    pointers, inside = block_at(
        data, vectors_left, depths_left, order_stride, depth_stride, VECTORS, DEPTHS, LAYOUT, ALIGNED, INDEX
    )
    tl.store(pointers, block, mask=inside)


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
