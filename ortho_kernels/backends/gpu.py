"""The operators on a GPU: each call goes to the backend that was chosen for these weights, `cuda` or `triton`."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from .. import ops, reference
from ..options import SO, SRIP
from ..weight_views import weight_views
from . import registry
from .cuda import CudaBackend
from .kernels import KernelBackend
from .registry import serving


def _serve(name, *arguments):
    first = 1 if name.endswith("_backward") else 0  # after `factors`
    views = weight_views(*arguments[first : first + 2])
    backend = serving(views, SRIP() if name.startswith("srip") else SO())
    if not isinstance(backend, KernelBackend):
        raise RuntimeError("the torch backend has no operators: it is the reference, differentiated by autograd")
    return backend.operate(name, views, *arguments)


def _start_vectors(keys: Tensor, step: Tensor) -> Tensor:
    """By the CUDA library in one launch, where it may serve; by the definition it is about twenty."""
    if registry.asked in ("auto", "cuda") and registry.reason_against("cuda", "cuda") is None:
        return CudaBackend.operators.start_vectors(keys, step)
    return reference.start_vectors(keys, step)


for _name in ops.NAMES:
    ops.library.impl(_name, partial(_serve, _name), "CUDA")  # the dispatch key of ROCm too
ops.library.impl("start_vectors", _start_vectors, "CUDA")
