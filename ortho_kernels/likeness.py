"""Whether tensors look as others did, asked in one call for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

try:
    from torch._C._dynamo.guards import TensorGuards
except ImportError:  # it is no part of torch's public interface
    TensorGuards = None  # type: ignore[assignment, misc]


def likeness(tensors: Sequence[Tensor]) -> Callable[..., bool]:
    """Returns a function of as many tensors: whether they are distinct, and each looks as the one in its place did here.

    That is its type, shape, strides, dtype, device, layout, and whether it requires a gradient. Dynamo asks the same before
    it runs what it compiled. It takes 2.5 us for 54 tensors, and 19 us if Python asks each of them.
    """
    if TensorGuards is None:
        return lambda *_: False  # then whoever asks looks closer
    shapes: list[Any] = [list(tensor.shape) for tensor in tensors]
    strides: list[Any] = [list(tensor.stride()) for tensor in tensors]
    return TensorGuards(*tensors, dynamic_dims_sizes=shapes, dynamic_dims_strides=strides).check
