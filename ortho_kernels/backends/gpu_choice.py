"""Which of the two GPU backends is the faster, where both can serve: a table, to be edited after a measurement."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..weight_views import WeightViews


class Step(NamedTuple):
    """What a choice depends on: the penalty (`so`, `srip`), and of its weights the dtypes and the work.

    `products`: multiplications and additions of soft orthogonality, forward and backward.
    """

    penalty: str
    storages: frozenset[torch.dtype]
    products: int

    @classmethod
    def of(cls, penalty: str, views: WeightViews) -> Step:
        """n^2 k / 2 products for R, n^2 k for R W."""
        work = sum(view.groups * view.order("small") * view.rows * view.cols for view in views.views) * 3 // 2
        return cls(penalty, frozenset(storage for _, storage in views.gradient_forms), work)


# The least products of a step from which Triton's kernels are the faster; what is not listed goes to the CUDA kernels.
# Measured on an H100 at 845390f and bf66c58, 2026-11-26 (docs/gpu.csv); us of a forward and backward, `cuda` / `triton`:
#                    ResNet-18 (7.7e9)  ResNet-50 (1.9e10)  ViT-B (9.9e10)
#   so, float32      733 / 956 (TF32)   1736 / 1580         8071 / 7250
#   so, bfloat16     486 / 241          1152 / 553          5304 / 2376
#   srip, float32    817 / 283          1642 / 622          4966 / 1584
#   srip, bfloat16   775 / 212          1558 / 527          5153 / 1257
# In brackets: with three TF32 products in place of six of bfloat16. float16 was not measured: it is taken for bfloat16.
_SM_90 = {
    ("so", torch.float32): 14_000_000_000,
    ("so", torch.bfloat16): 0,
    ("so", torch.float16): 0,
    ("srip", torch.float32): 0,
    ("srip", torch.bfloat16): 0,
    ("srip", torch.float16): 0,
}
# Nothing was measured on Blackwell: it is taken for Hopper, since Triton reaches matrix instructions of its own there too.
TRITON_FROM = {"sm_90": _SM_90, "sm_100": _SM_90, "sm_103": _SM_90}


def faster(architecture: str, step: Step) -> str:
    """`cuda` or `triton`. Of weights of several dtypes each must be the faster with Triton."""
    least = TRITON_FROM.get(architecture, {})
    triton = all(step.products >= least.get((step.penalty, storage), step.products + 1) for storage in step.storages)
    return "triton" if triton else "cuda"


def explain(architecture: str) -> str:
    """The choice for float32 weights, in words for people."""
    least = TRITON_FROM.get(architecture, {})
    parts = [
        name if products == 0 else f"{name} from {products:.1e} multiplications a step on"
        for penalty, name in (("srip", "SRIP"), ("so", "soft orthogonality"))
        if (products := least.get((penalty, torch.float32))) is not None
    ]
    if not parts:
        return f"cuda (no measurement says that triton is faster on {architecture})"
    return f"triton for {' and '.join(parts)}; else cuda"
