"""The operators on a GPU: each call goes to the backend that was chosen for these weights, `cuda` or `triton`."""

from __future__ import annotations

from functools import partial

from .. import ops
from ..weight_views import weight_views
from .kernels import KernelBackend
from .registry import serving


def _serve(name, *arguments):
    first = 1 if name.endswith("_backward") else 0  # after `factors`
    views = weight_views(*arguments[first : first + 2])
    backend = serving(views, "srip" if name.startswith("srip") else "so")
    if not isinstance(backend, KernelBackend):
        raise RuntimeError("the torch backend has no operators: it is the reference, differentiated by autograd")
    return backend.operate(name, views, *arguments)


for _name in ops.NAMES:
    ops.library.impl(_name, partial(_serve, _name), "CUDA")  # the dispatch key of ROCm too
