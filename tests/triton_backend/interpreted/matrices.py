"""The weights and the truth that the interpreted tests share: the shape matrix of the CPU kernels' tests."""

import importlib.util
from pathlib import Path

import torch

from ortho_kernels.backends import triton as kernels

_path = Path(__file__).parents[2] / "native" / "test_cpu_kernels.py"
_spec = importlib.util.spec_from_file_location("cpu_kernels", _path)
cpu_kernels = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cpu_kernels)

NAMES = list(cpu_kernels.WEIGHTS)
SIDES = (0, 1)
STORAGES = (torch.float32, torch.bfloat16, torch.float16)


class ReturningGradients:
    """The operators with backwards that make the gradients they write into, and return them."""

    soft_orthogonality = staticmethod(kernels.soft_orthogonality)
    srip = staticmethod(kernels.srip)

    @staticmethod
    def soft_orthogonality_backward(factors, weights, groups, sides, residuals, precision, wanted):
        gradients = [torch.empty_like(w) for w, want in zip(weights, wanted, strict=True) if want]
        kernels.soft_orthogonality_backward(
            factors, weights, groups, sides, residuals, precision, gradients, wanted, False
        )
        return gradients

    @staticmethod
    def srip_backward(factors, weights, groups, sides, vectors, pairs, wanted):
        gradients = [torch.empty_like(w) for w, want in zip(weights, wanted, strict=True) if want]
        kernels.srip_backward(factors, weights, groups, sides, vectors, pairs, gradients, wanted, False)
        return gradients
