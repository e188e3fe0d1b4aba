"""What each kernel is compiled for: its meta-parameters and the compiler's options, keywords of its call.

They name every dtype of an argument that differs between calls: a launch keeps one compiled kernel for its keywords.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import triton
import triton.language as tl

from .heuristics import ARCHITECTURES
from .matrices import VECTOR_BYTES, Access
from .plan import Plan, dense_order

LEAST_VECTORS = 16  # that tensor cores multiply at once
COMBINE_WARPS = SPREAD_WARPS = 4
NUMBERS = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
AccessTo = dict[torch.dtype, Access]


class Meta(SimpleNamespace):
    """The meta-parameters of a kernel, one argument of it: constants that it reads as attributes."""

    def __init__(self, **constants: Any):
        super().__init__(**{name: tl.constexpr(value) for name, value in constants.items()})

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(
            tuple(constant.value for constant in vars(self).values())
        )  # in every launch: repr would take longer


def interpreting() -> bool:
    return triton.knobs.runtime.interpret


def residuals(plan: Plan, keep: bool, storage: torch.dtype) -> dict[str, Any]:
    tile = plan.configuration.residual(storage)
    meta = Meta(
        **_access(storage, plan.access),
        KINDS=sum(1 << kind for kind in {item.kind for item in plan.residuals.items[storage]}),
        KEEP=keep,
        BLOCK=tile.rows,
        BLOCK_DEPTH=tile.depth,
        PRECISION=plan.configuration.forward_precision if storage is torch.float32 else "ieee",
        UPCAST=interpreting(),
    )
    return {"META": meta, **_options(plan, tile.warps, tile.programs, num_stages=tile.stages)}


def spread_residuals(plan: Plan, precision: int, storage: torch.dtype) -> dict[str, Any]:
    widest = dense_order(max(matrix.order for matrix in plan.matrices))
    meta = Meta(
        PACKED=tl.int32 if widest * (widest + 1) < 2**31 else tl.int64,
        OPERAND=NUMBERS[dense_dtype(plan, storage, precision)],
    )
    return {"META": meta, **_options(plan, SPREAD_WARPS)}


def residual_products(plan: Plan, access: AccessTo, precision: int, storage: torch.dtype) -> dict[str, Any]:
    tile = plan.configuration.product(storage, precision)
    meta = Meta(
        **_access(storage, access),
        BLOCK_ROWS=tile.rows,
        BLOCK_COLUMNS=tile.columns,
        BLOCK_ORDER=tile.depth,
        OPERAND=NUMBERS[dense_dtype(plan, storage, precision)],
        PRECISION=precision_of_dot(plan.configuration.product_precision(storage, precision)),
        UPCAST=interpreting(),
    )
    return {"META": meta, **_options(plan, tile.warps, tile.programs, num_stages=tile.stages)}


def precision_of_dot(chosen: str) -> str:
    """Operands of bfloat16 are multiplied as they are."""
    return "ieee" if chosen == "bf16" else chosen


def dense_dtype(plan: Plan, storage: torch.dtype, precision: int) -> torch.dtype:
    """Of R, and of the operands of R W."""
    chosen = plan.configuration.product_precision(storage, precision)
    return torch.bfloat16 if chosen == "bf16" else torch.float32


def passes(plan: Plan, storage: torch.dtype) -> dict[str, Any]:
    chosen = plan.configuration.passes
    meta = Meta(**_access(storage, plan.access), ROWS=chosen.rows, COLUMNS=chosen.columns)
    return {"META": meta, **_options(plan, chosen.warps, chosen.programs)}


def combines(plan: Plan, storage: torch.dtype) -> dict[str, Any]:
    return _options(plan, COMBINE_WARPS)


def rank_updates(plan: Plan, access: AccessTo, pairs: int, storage: torch.dtype) -> dict[str, Any]:
    chosen = plan.configuration.update
    meta = Meta(
        **_access(storage, access),
        VECTORS=max(LEAST_VECTORS, triton.next_power_of_2(2 * pairs)),
        ROWS=chosen.rows,
        COLUMNS=chosen.columns,
        PRECISION=plan.configuration.update_precision,
    )
    return {"META": meta, **_options(plan, chosen.warps, chosen.programs)}


def _access(storage: torch.dtype, access: AccessTo) -> dict[str, Any]:
    """How blocks are read and written."""
    return {
        "STORAGE": NUMBERS[storage],
        "ALIGNED": VECTOR_BYTES // storage.itemsize,
        "LAYOUTS": access[storage].layouts,
        "INDEX": tl.int64 if access[storage].wide else tl.int32,
    }


def _options(plan: Plan, warps: int, programs: int = 1, **options: Any) -> dict[str, Any]:
    """The compiler's options. Left alone, ptxas aims for a higher occupancy than a tile has, and spills for it."""
    if interpreting():
        return {}
    capacity = ARCHITECTURES.get(plan.configuration.architecture)
    if capacity is not None and capacity.target == "cuda":
        options["maxnreg"] = capacity.registers_with(warps, programs)
    return {"num_warps": warps, "enable_fp_fusion": True, **options}
