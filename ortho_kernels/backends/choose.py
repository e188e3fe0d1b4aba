"""Which backend serves a device, and why the others don't."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from . import cuda, native, triton

BACKENDS = ("cuda", "triton", "cpu", "torch")  # the first that can serve does, unless another is asked for
_VARIABLE = "ORTHO_KERNELS_BACKEND"


def _checked(name: str, source: str) -> str:
    if name not in ("auto", *BACKENDS):
        raise ValueError(f"{source} must be one of 'auto', {', '.join(map(repr, BACKENDS))}; got {name!r}")
    return name


_against_native = native.load()  # at import, so that a compiled step finds a constant
_asked = _checked(os.environ.get(_VARIABLE, "auto"), f"the environment variable {_VARIABLE}")


def reason_against(backend: str, device_type: str, dtype: torch.dtype = torch.float32) -> str | None:
    """Why this backend can't serve weights of this compute dtype on this type of device, or None if it can."""
    if backend == "torch":
        return None
    own_device = "cpu" if backend == "cpu" else "cuda"
    if device_type != own_device:
        return f"its kernels run on {own_device}, and the weights are on {device_type}"
    if backend == "cpu":
        return _against_native
    return (cuda if backend == "cuda" else triton).reason_against(dtype)


def choose(device_type: str, dtype: torch.dtype = torch.float32) -> str:
    """The backend asked for, or the first that can serve."""
    if _asked != "auto":
        reason = reason_against(_asked, device_type, dtype)
        if reason is not None:
            raise RuntimeError(
                f"the backend {_asked!r} was asked for but can't serve these weights: {reason}. "
                "`python -m ortho_kernels.doctor` says which backends work here."
            )
        return _asked
    return next(backend for backend in BACKENDS if reason_against(backend, device_type, dtype) is None)


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Asks for a backend (`cuda`, `triton`, `cpu`, `torch`, or `auto`, the default) within the block, process-wide.

    The environment variable ORTHO_KERNELS_BACKEND does the same from outside. A backend that can't serve raises
    `RuntimeError` with its reason when a penalty is computed.
    """
    global _asked
    before, _asked = _asked, _checked(name, "the backend")
    try:
        yield
    finally:
        _asked = before
