"""The Triton kernels: compiled on first use, by the triton that comes with torch. triton is imported when it is needed."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch

from ...weight_views import WeightViews
from ..kernels import KernelBackend
from .device import device_facts
from .heuristics import ARCHITECTURES

OLDEST = (3, 4)  # the first whose interpreter and compilers these kernels were written for


def reason_against(dtype: torch.dtype) -> str | None:
    """Why these kernels can't serve weights of this compute dtype on the GPU, or None if they can."""
    if dtype is torch.float64:
        return "it has no float64 products"
    if (reason := reason_against_triton()) is not None:
        return reason
    if not torch.cuda.is_available():
        return "torch sees no GPU"
    if (found := architecture()) not in ARCHITECTURES:
        return f"it has no configuration for {found}: known are {', '.join(ARCHITECTURES)}"
    return None


def architecture() -> str:
    """Of the current GPU, as triton's targets are called."""
    return device_facts(torch.device("cuda", torch.cuda.current_device())).architecture


def describe() -> str:
    """The version of triton, or why there is none, for `doctor`."""
    reason = reason_against_triton()
    return reason if reason is not None else f"{import_module('triton').__version__}, imported when a GPU is served"


@cache
def reason_against_triton() -> str | None:
    """Why triton can't serve, on any GPU, or None if it can."""
    if find_spec("triton") is None:
        return "triton is not installed"
    try:
        found = version("triton")
    except PackageNotFoundError:
        return None  # part of another distribution, such as pytorch-triton-rocm
    if tuple(int(part) for part in found.split(".")[:2]) < OLDEST:
        return f"triton {found} is too old: {OLDEST[0]}.{OLDEST[1]} is the oldest that serves"
    return None


class TritonBackend(KernelBackend):
    name = "triton"
    device_type = "cuda"

    def reason_against(self, dtype: torch.dtype) -> str | None:
        return reason_against(dtype)

    @property
    def operators(self) -> ModuleType:
        return import_module(f"{__name__}.operators")

    def operate(self, name: str, views: WeightViews, *arguments: Any) -> Any:
        return getattr(self.operators, name)(*arguments, views=views)
