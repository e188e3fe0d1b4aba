"""The shifts at which a convolution's kernel meets itself. Sizes, strides, paddings and shifts are (y, x).

`csrc/ortho/cpu/convolution.cpp` holds the same rule for what is kept; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence

Spatial = tuple[int, int]


def kernel_size(shape: Sequence[int]) -> Spatial:
    """Of a weight (out, in), (out, in, width) or (out, in, height, width)."""
    return (shape[2] if len(shape) > 3 else 1), (shape[-1] if len(shape) > 2 else 1)


def full_padding(size: Spatial, stride: Spatial) -> Spatial:
    """The padding of the output of all shifts that a convolution of this stride has: P = floor((k - 1) / S) S."""
    return (size[0] - 1) // stride[0] * stride[0], (size[1] - 1) // stride[1] * stride[1]


def output_size(stride: Spatial, padding: Spatial) -> Spatial:
    """Of the convolution of a kernel with itself, whatever its size."""
    return 2 * padding[0] // stride[0] + 1, 2 * padding[1] // stride[1] + 1


def kept_entries(shape: Sequence[int], groups: int, stride: Spatial, padding: Spatial, identity: Spatial) -> int:
    """The number of entries that are kept for the backward: one residual for a shift and its opposite.

    A residual has out/groups rows and columns. That of the zero shift is symmetric: only its triangle is kept.
    """
    size, places = kernel_size(shape), output_size(stride, padding)
    shifts = set()
    for y in range(places[0]):
        for x in range(places[1]):
            shift = y * stride[0] - padding[0], x * stride[1] - padding[1]
            overlaps = abs(shift[0]) < size[0] and abs(shift[1]) < size[1]
            if overlaps or (y, x) == identity:
                shifts.add(max(shift, (-shift[0], -shift[1])))
    rows = shape[0] // groups
    triangular = (0, 0) in shifts
    return (len(shifts) - triangular) * rows * rows + triangular * (rows * (rows + 1) // 2)
