"""The operators on a GPU: each call goes to the backend that was chosen, `cuda` or `triton`.

Both define functions of the operators' names and signatures (see `ops.py`).
"""

from __future__ import annotations

from functools import partial

from .. import ops
from . import cuda, triton
from .choose import choose

_MODULES = {"cuda": cuda, "triton": triton}


def _serve(name, *arguments):
    weights = next(argument for argument in arguments if isinstance(argument, (list, tuple)))
    backend = choose("cuda", ops.compute_dtype(weights))
    if backend not in _MODULES:
        raise RuntimeError("the torch backend has no operators: it is the reference, differentiated by autograd")
    return getattr(_MODULES[backend], name)(*arguments)


for _name in ops.NAMES:
    ops.library.impl(_name, partial(_serve, _name), "CUDA")  # the dispatch key of ROCm too
