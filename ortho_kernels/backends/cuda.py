"""The CUDA C++ kernels."""

from __future__ import annotations

import torch


def reason_against(dtype: torch.dtype) -> str | None:
    """Why these kernels can't serve weights of this compute dtype on the GPU, or None if they can."""
    return "not built: this version has no CUDA kernels yet"
