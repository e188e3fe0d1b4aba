"""The operators on a GPU: each call goes to the backend that was chosen, `cuda` or `triton`.

Both define functions of the operators' names and signatures (see `ops.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from .. import ops
from ..matrix_view import matrix_view
from . import cuda, triton
from .choose import choose

_MODULES = {"cuda": cuda, "triton": triton}


def _serve(name, *arguments):
    place = next(i for i, argument in enumerate(arguments) if isinstance(argument, (list, tuple)))
    weights, groups, sides = arguments[place : place + 3]
    products = 0 if name.startswith("srip") else _products(weights, groups, sides)
    backend = choose("cuda", ops.compute_dtype(weights), products)
    if backend not in _MODULES:
        raise RuntimeError("the torch backend has no operators: it is the reference, differentiated by autograd")
    return getattr(_MODULES[backend], name)(*arguments)


def _products(weights: Sequence[Tensor], groups: Sequence[int], sides: Sequence[int]) -> int:
    """Multiplications and additions of a step of soft orthogonality: n^2 k / 2 for R, n^2 k for R W."""
    total = 0
    for weight, count, side in zip(weights, groups, sides, strict=True):
        view = matrix_view(weight, count)
        order = view.rows if side == ops.ROWS else view.cols
        total += count * order * view.rows * view.cols
    return total * 3 // 2


for _name in ops.NAMES:
    ops.library.impl(_name, partial(_serve, _name), "CUDA")  # the dispatch key of ROCm too
