"""Which backend serves which weights, and why the others don't."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..options import OCNN, SO, SRIP, CrossGram, ExtremeEigenvalues
from ..weight_views import WeightViews
from . import cuda, gpu_choice, triton
from .cpu import CpuBackend
from .cuda import CudaBackend
from .gpu_choice import Step
from .protocol import Backend
from .torch import TorchBackend

# The first that can serve does, unless another is asked for.
BACKENDS: dict[str, Backend] = {
    backend.name: backend for backend in (CudaBackend(), triton.TritonBackend(), CpuBackend(), TorchBackend())
}
_VARIABLE = "ORTHO_KERNELS_BACKEND"

_log = logging.getLogger("ortho_kernels")
_logged: set[str] = set()
_warned: set[str] = set()


def _checked(name: str, source: str) -> str:
    if name not in ("auto", *BACKENDS):
        raise ValueError(f"{source} must be one of 'auto', {', '.join(map(repr, BACKENDS))}; got {name!r}")
    return name


asked = _checked(os.environ.get(_VARIABLE, "auto"), f"the environment variable {_VARIABLE}")


def reason_against(backend: str, device_type: str, dtype: torch.dtype = torch.float32) -> str | None:
    """Why this backend can't serve weights of this compute dtype on this type of device, or None if it can."""
    own = BACKENDS[backend].device_type
    if own is not None and device_type != own:
        return f"its kernels run on {own}, and the weights are on {device_type}"
    return BACKENDS[backend].reason_against(dtype)


def choose(device_type: str, dtype: torch.dtype = torch.float32, step: Step | None = None) -> str:
    """The backend asked for, or the first that can serve; of two for a GPU, the faster for this step."""
    if asked != "auto":
        reason = reason_against(asked, device_type, dtype)
        if reason is not None:
            raise RuntimeError(
                f"the backend {asked!r} was asked for but can't serve these weights: {reason}. "
                "`python -m ortho_kernels.doctor` says which backends work here."
            )
        return asked
    serving = [backend for backend in BACKENDS if reason_against(backend, device_type, dtype) is None]
    if device_type == "cuda" and dtype is torch.float64 and not torch.compiler.is_compiling():
        _log_once(f"float64 weights are served by {serving[0]}, not by triton: {triton.reason_against(dtype)}")
    if step is not None and serving[:2] == ["cuda", "triton"]:
        return gpu_choice.faster(triton.architecture(), step, cuda.has_warpgroups())
    return serving[0]


def serving(views: WeightViews, options: SO | SRIP | CrossGram | OCNN | ExtremeEigenvalues) -> Backend:
    """The backend for these options and weights: chosen once, and kept with their views.

    Where the chosen one lacks an option, the torch backend serves.
    """
    backend = views.backends.get((asked, options))
    if backend is None:
        backend = BACKENDS[choose(views.device.type, views.dtype, Step.of(options.kind, views))]
        if (lacking := backend.lacks(options)) is not None:
            _warn_of_the_torch_backend(backend.name, lacking)
            backend = BACKENDS["torch"]
        views.backends[asked, options] = backend
    return backend


def explain(device_type: str) -> str:
    """What is chosen for float32 weights on this type of device, and why, in words for people."""
    if asked != "auto":
        return f"{choose(device_type)} (asked for)"
    serving = [backend for backend in BACKENDS if reason_against(backend, device_type) is None]
    if serving[:2] != ["cuda", "triton"]:
        return f"{serving[0]} (the first of {', '.join(BACKENDS)} that serves)"
    return gpu_choice.explain(triton.architecture(), cuda.has_warpgroups())


def _warn_of_the_torch_backend(name: str, lacking: str) -> bool:
    """Once for each backend and option."""
    message = f"the backend {name!r} lacks {lacking}: the torch backend serves, with one operation after the other"
    if message not in _warned:
        _warned.add(message)
        warnings.warn(f"{message}. `python -m ortho_kernels.doctor` lists what each backend lacks.", stacklevel=4)
    return True


# Dynamo then calls it while it traces (see torch.compiler.assume_constant_result): it can't trace a warning.
_warn_of_the_torch_backend._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _log_once(message: str) -> None:
    if message not in _logged:
        _logged.add(message)
        _log.warning(message)


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Asks for a backend (`cuda`, `triton`, `cpu`, `torch`, or `auto`, the default) within the block, process-wide.

    The environment variable ORTHO_KERNELS_BACKEND does the same from outside. A backend that can't serve raises
    `RuntimeError` with its reason when a penalty is computed.
    """
    global asked
    before, asked = asked, _checked(name, "the backend")
    try:
        yield
    finally:
        asked = before
