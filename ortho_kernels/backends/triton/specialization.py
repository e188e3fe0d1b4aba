"""What each kernel is compiled for: constants and options, from a configuration and from what is among the items.

The same for a launch and for compilation ahead of time. Needs no GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
import triton.language as tl

from .heuristics import ARCHITECTURES, PASS_REGISTERS
from .matrices import VECTOR_BYTES
from .plan import PASS_ITEM, PRODUCT_ITEM, RESIDUAL_ITEM, UPDATE_ITEM, Item, Kind, Plan

WIDEST_BLOCK = 256  # entries along a dimension
LEAST_VECTORS = 16  # that tensor cores multiply at once
NUMBERS = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


class Specialization(NamedTuple):
    """Keyword arguments of a kernel: its constants, and options of the compiler."""

    constants: dict[str, Any]
    options: dict[str, Any]


def _found(items: Sequence[Item], table: tuple[str, ...], column: str) -> set[int]:
    """All that stands in a column."""
    place = table.index(column)
    return {item[place] for item in items}


def _bits(numbers: Iterable[int]) -> int:
    return sum(1 << number for number in numbers)


def _read_as(storage: torch.dtype, widest_stride: int) -> dict[str, Any]:
    """How blocks are read; offsets within a block pass 2^31 with huge strides only."""
    wide = widest_stride * 2 * WIDEST_BLOCK >= 2**31
    return {
        "STORAGE": NUMBERS[storage],
        "ALIGNED": VECTOR_BYTES // storage.itemsize,
        "INDEX": tl.int64 if wide else tl.int32,
    }


def _options(plan: Plan, warps: int, registers: int | None = None, **options: int) -> dict[str, Any]:
    """The compiler's options. Left alone, ptxas aims for a higher occupancy than a tile has, and spills for it."""
    limits = ARCHITECTURES.get(plan.configuration.architecture)
    if limits is not None and limits.target == "cuda":
        most = min(limits.registers_per_thread, limits.registers // (warps * limits.warp))
        options["maxnreg"] = most if registers is None else min(most, registers)
    return {"num_warps": warps, **options}


def residuals(
    plan: Plan, storage: torch.dtype, items: Sequence[Item], keep: bool, interpreted: bool = False
) -> Specialization:
    tile = plan.configuration.residual(storage)
    kinds = _found(items, RESIDUAL_ITEM, "kind")
    constants = {
        **_read_as(storage, plan.widest_stride),
        "LAYOUTS": _bits(_found(items, RESIDUAL_ITEM, "layout")),
        "HAS_TILES": Kind.TILE in kinds,
        "HAS_TINY": Kind.TINY in kinds,
        "HAS_NORMS": Kind.NORMS in kinds,
        "KEEP": keep,
        "BLOCK": tile.rows,
        "BLOCK_DEPTH": tile.depth,
        "PRECISION": plan.configuration.forward_precision if storage is torch.float32 else "ieee",
        "UPCAST": interpreted and storage is torch.bfloat16,  # the interpreter's own product of bfloat16 is wrong
    }
    return Specialization(constants, _options(plan, tile.warps, num_stages=tile.stages))


def residual_products(
    plan: Plan,
    storage: torch.dtype,
    items: Sequence[Item],
    precision: int,
    interpreted: bool = False,
) -> Specialization:
    tile = plan.configuration.product(storage, precision)
    chosen = plan.configuration.product_precision(storage, precision)
    rounded = chosen == "bf16" and not interpreted
    constants = {
        **_read_as(storage, plan.widest_stride),
        "LAYOUTS": _bits(_found(items, PRODUCT_ITEM, "layout")),
        "BLOCK_ROWS": tile.rows,
        "BLOCK_COLUMNS": tile.columns,
        "BLOCK_ORDER": tile.depth,
        "OPERAND": tl.bfloat16 if rounded else tl.float32,
        "PRECISION": "ieee" if chosen == "bf16" else chosen,
        "PACKED": tl.int32 if plan.widest_order * (plan.widest_order + 1) < 2**31 else tl.int64,
    }
    return Specialization(constants, _options(plan, tile.warps, num_stages=tile.stages))


def passes(plan: Plan, storage: torch.dtype, items: Sequence[Item]) -> Specialization:
    chosen = plan.configuration.passes
    constants = {
        **_read_as(storage, plan.widest_stride),
        "LAYOUTS": _bits(_found(items, PASS_ITEM, "layout")),
        "ROWS": chosen.rows,
        "COLUMNS": chosen.columns,
    }
    return Specialization(constants, _options(plan, chosen.warps, PASS_REGISTERS))


def rank_updates(plan: Plan, storage: torch.dtype, items: Sequence[Item], pairs: int) -> Specialization:
    chosen = plan.configuration.update
    vectors = LEAST_VECTORS
    while vectors < 2 * pairs:
        vectors *= 2
    constants = {
        **_read_as(storage, plan.widest_stride),
        "LAYOUTS": _bits(_found(items, UPDATE_ITEM, "layout")),
        "VECTORS": vectors,
        "ROWS": chosen.rows,
        "COLUMNS": chosen.columns,
        "PRECISION": plan.configuration.forward_precision,
    }
    return Specialization(constants, _options(plan, chosen.warps))


# The types of the kernels' arguments that are not constants; those of weights' numbers depend on the dtype.
_WEIGHTS = {"pointers": "*i64", "matrices": "*i64", "items": "*i64"}
_WORKSPACE = {"vectors": "*fp64", "sums": "*fp64", "squares": "*fp64", "total_order": "i32", "total_squares": "i32"}
_NAMES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}


def argument_types(kernel: str, storage: torch.dtype) -> dict[str, str]:
    """The types of the arguments of a kernel, by its name, as triton writes them."""
    types = {
        "residuals": _WEIGHTS | {
            "values": "*fp32", "kept": "*fp32", "partial_sums": "*fp64", "squares": "*fp64", "tile_counters": "*i32",
            "matrix_counters": "*i32", "diagonal": "fp32", "off_diagonal": "fp32",
        },
        "residual_products": _WEIGHTS | {"grad_values": "*fp32", "residuals": "*fp32", "gradients": _NAMES[storage]},
        "rank_updates": _WEIGHTS | {
            "entry_orders": "*i64", "grad_values": "*fp32", "kept": "*fp32", "gradients": _NAMES[storage], "pairs": "i32",
        },
        "iterate": _WORKSPACE | {
            "pointers": "*i64", "matrices": "*i64", "passes": "*i64", "pass_count": "i32", "combines": "*i64",
            "combine_count": "i32", "entry_orders": "*i64", "start": "*fp32", "values": "*fp32", "kept": "*fp32",
            "barrier": "*i32", "iterations": "i32", "steps": "i32", "pairs": "i32",
        },
        "begin_all": {
            "combines": "*i64", "matrices": "*i64", "entry_orders": "*i64", "start": "*fp32", "vectors": "*fp64",
            "squares": "*fp64",
        },
        "combine_all": _WORKSPACE | {"combines": "*i64", "step": "i32", "iterations": "i32", "matrices": "*i64"},
        "finish_all": {
            "combines": "*i64", "iterations": "i32", "pairs": "i32", "matrices": "*i64", "entry_orders": "*i64",
            "values": "*fp32", "kept": "*fp32", "vectors": "*fp64", "squares": "*fp64", "total_order": "i32",
            "total_squares": "i32",
        },
        "apply_all": {
            "passes": "*i64", "step": "i32", "iterations": "i32", "pointers": "*i64", "matrices": "*i64",
            "vectors": "*fp64", "sums": "*fp64", "total_order": "i32",
        },
    }  # fmt: skip
    return types[kernel]
