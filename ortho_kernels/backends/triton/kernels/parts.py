"""Products of float32 by the tensor cores of bfloat16, nearly exact: each number in three parts, of 8 bits each.

Of the nine products of parts the least is left out, 2^-30 of the whole. The others are one product over eight times the
depth, from the least to the largest: one wait a block, and only the last of them rounds at the height of the sum. Triton's
own (`input_precision="bf16x6"`) waits for each of six, and converts where masks will do.
"""

import triton
import triton.language as tl


@triton.jit
def short_product(left, right, PRECISION: tl.constexpr, SHORT: tl.constexpr, UPCAST: tl.constexpr):
    """`left @ right` in float32, a sum of its own. `SHORT` is the depth, for which triton must not add it to another.

    `PRECISION` and `UPCAST` are those of `operands_of`.
    """
    left, right = operands_of(left, right, PRECISION, UPCAST)
    return tl.dot(
        left, right, input_precision="ieee" if PRECISION == "bf16x8" else PRECISION, max_num_imprecise_acc=SHORT
    )


@triton.jit
def operands_of(left, right, PRECISION: tl.constexpr, UPCAST: tl.constexpr):
    """What is multiplied. `PRECISION` is one of triton's, or `bf16x8`: then the product itself is an `ieee` one.

    `UPCAST`: triton's interpreter is wrong in products of bfloat16.
    """
    if PRECISION == "bf16x8":
        left, right = left_in_parts(left), right_in_parts(right)
    if UPCAST:
        left, right = left.to(tl.float32), right.to(tl.float32)
    return left, right


@triton.jit
def left_in_parts(x):
    """Rows x depth -> rows x (8 depth)."""
    high, middle, low = parts_of(x)
    parts = joined(low, middle, low, high, middle, middle, high, high)
    return tl.reshape(tl.permute(parts, (0, 2, 1)), (x.shape[0], 8 * x.shape[1]))


@triton.jit
def right_in_parts(x):
    """Depth x columns -> (8 depth) x columns: for each part on the left its partner."""
    high, middle, low = parts_of(x)
    parts = joined(middle, low, high, low, middle, high, middle, high)
    return tl.reshape(tl.permute(parts, (2, 0, 1)), (8 * x.shape[0], x.shape[1]))


@triton.jit
def parts_of(x):
    """Bits are cut off, not rounded: what is left is exact, and of the same sign."""
    high = upper_half(x)
    middle = upper_half(x - high)
    return as_bfloat16(high), as_bfloat16(middle), as_bfloat16(x - high - middle)


@triton.jit
def upper_half(x):
    return (x.to(tl.int32, bitcast=True) & -65536).to(tl.float32, bitcast=True)


@triton.jit
def as_bfloat16(x):
    return (x.to(tl.int32, bitcast=True) >> 16).to(tl.int16).to(tl.bfloat16, bitcast=True)


@triton.jit
def joined(a, b, c, d, e, f, g, h):
    """A last dimension of eight, in this order: the first to be joined is its lowest bit."""
    lower = tl.join(tl.join(a, e), tl.join(c, g))
    upper = tl.join(tl.join(b, f), tl.join(d, h))
    return tl.reshape(tl.join(lower, upper), (a.shape[0], a.shape[1], 8))
