"""The `torch` backend: the reference itself, on any device, with autograd's own gradients (of any order)."""

from __future__ import annotations

import warnings

import torch

from ..matrix_view import check_storage

_warned = False


def call(penalty, weights, **options):
    """Runs a function of `reference.py` as a float32 island: autocast would round the Grams of which R is the difference."""
    _warn_of_low_precision()
    check_storage(weights)
    with torch.autocast(device_type=weights[0].device.type, enabled=False):
        return penalty(weights, **options)


def _warn_of_low_precision() -> None:
    global _warned
    if torch.compiler.is_compiling():  # Dynamo can't trace what follows
        return
    precision = torch.get_float32_matmul_precision()
    if precision != "highest" and not _warned:
        _warned = True
        warnings.warn(
            f"float32 matmul precision is {precision!r}: the torch backend's Grams follow it, and near orthogonality their "
            "penalty may be wrong by several percent (TF32) or several times (bfloat16). "
            "torch.set_float32_matmul_precision('highest') avoids that, and so do the kernels.",
            stacklevel=4,
        )
