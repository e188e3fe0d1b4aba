"""Which of the two GPU backends is the faster, where both can serve: a table, to be edited after a measurement."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..weight_views import WeightViews


class Step(NamedTuple):
    """What a choice depends on: the penalty (`so`, `srip`), and the dtypes of its weights."""

    penalty: str
    storages: frozenset[torch.dtype]

    @classmethod
    def of(cls, penalty: str, views: WeightViews) -> Step:
        return cls(penalty, frozenset(storage for _, storage in views.gradient_forms))


# Measured on an H200, 2026-11-27 (docs/gpu.csv); us of a forward and backward, `cuda` / `triton`. First those that multiply
# with warpgroups, then those with warps, as on every other GPU (at 3d55b36):
#                    ResNet-50 (warpgroups)  ViT-B (warpgroups)  ResNet-50 (warps)  ViT-B (warps)
#   so, float32      504 / 1421              2034 / 7248         846 / 1422         3364 / 7249
#   so, bfloat16     260 / 324               889 / 945           489 / 330
#   srip, float32                                                224 / 336          625 / 827
#   srip, bfloat16                                               298 / 392          794 / 1872
# SRIP multiplies no matrices: it is the same with both. float16 was not measured: it is taken for bfloat16.
_FASTER_THAN_WARPS = {("so", torch.bfloat16), ("so", torch.float16)}
# Nothing was measured on Blackwell. Triton reaches matrix instructions of its own there too, the CUDA kernels don't.
_WITH_OWN_INSTRUCTIONS = ("sm_90", "sm_100", "sm_103")


def faster(architecture: str, step: Step, has_warpgroups: bool) -> str:
    """`cuda` or `triton`; `has_warpgroups`: whether the CUDA library multiplies with them on this GPU."""
    return "triton" if step.storages <= _faster_with_triton(architecture, step.penalty, has_warpgroups) else "cuda"


def explain(architecture: str, has_warpgroups: bool) -> str:
    """The choice, in words for people."""
    if storages := _faster_with_triton(architecture, "so", has_warpgroups):
        names = sorted(str(storage).removeprefix("torch.") for storage in storages)
        return f"triton for soft orthogonality of {' and '.join(names)}; else cuda"
    return "cuda (no measurement says that triton is faster here)"


def _faster_with_triton(architecture: str, penalty: str, has_warpgroups: bool) -> set[torch.dtype]:
    if has_warpgroups or architecture not in _WITH_OWN_INSTRUCTIONS:
        return set()
    return {storage for name, storage in _FASTER_THAN_WARPS if name == penalty}
