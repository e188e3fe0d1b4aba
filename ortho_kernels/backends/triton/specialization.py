"""What each kernel is compiled for: constants and options, from a configuration and from what is among the items.

The same for a launch, for `warmup` and for compilation ahead of time. Needs no GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
import triton.language as tl

from .heuristics import Configuration
from .matrices import VECTOR_BYTES
from .plan import PASS_ITEM, PRODUCT_ITEM, RESIDUAL_ITEM, UPDATE_ITEM, Item, Kind

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


def _read_as(storage: torch.dtype) -> dict[str, Any]:
    return {"STORAGE": NUMBERS[storage], "ALIGNED": VECTOR_BYTES // storage.itemsize}


def residuals(
    configuration: Configuration, storage: torch.dtype, items: Sequence[Item], keep: bool, interpreted: bool = False
) -> Specialization:
    tile = configuration.residual(storage)
    kinds = _found(items, RESIDUAL_ITEM, "kind")
    constants = {
        **_read_as(storage),
        "LAYOUTS": _bits(_found(items, RESIDUAL_ITEM, "layout")),
        "HAS_TILES": Kind.TILE in kinds,
        "HAS_SMALL": Kind.SMALL in kinds,
        "HAS_NORMS": Kind.NORMS in kinds,
        "KEEP": keep,
        "BLOCK": tile.rows,
        "BLOCK_DEPTH": tile.depth,
        "PRECISION": configuration.forward_precision if storage is torch.float32 else "ieee",
        "UPCAST": interpreted and storage is torch.bfloat16,  # the interpreter's own product of bfloat16 is wrong
    }
    return Specialization(constants, {"num_warps": tile.warps, "num_stages": tile.stages})


def residual_products(
    configuration: Configuration,
    storage: torch.dtype,
    items: Sequence[Item],
    precision: int,
    widest_order: int,
    interpreted: bool = False,
) -> Specialization:
    tile = configuration.product(storage, precision)
    chosen = configuration.product_precision(storage, precision)
    rounded = chosen == "bf16" and not interpreted
    constants = {
        **_read_as(storage),
        "LAYOUTS": _bits(_found(items, PRODUCT_ITEM, "layout")),
        "BLOCK_ROWS": tile.rows,
        "BLOCK_COLUMNS": tile.columns,
        "BLOCK_ORDER": tile.depth,
        "OPERAND": tl.bfloat16 if rounded else tl.float32,
        "PRECISION": "ieee" if chosen == "bf16" else chosen,
        "INDEX": tl.int32 if widest_order * (widest_order + 1) < 2**31 else tl.int64,
    }
    return Specialization(constants, {"num_warps": tile.warps, "num_stages": tile.stages})


def passes(configuration: Configuration, storage: torch.dtype, items: Sequence[Item]) -> Specialization:
    chosen = configuration.passes
    constants = {
        **_read_as(storage),
        "LAYOUTS": _bits(_found(items, PASS_ITEM, "layout")),
        "SIZES": _bits(_found(items, PASS_ITEM, "small")),
        "ROWS": chosen.rows,
        "COLUMNS": chosen.columns,
    }
    return Specialization(constants, {"num_warps": chosen.warps})


def rank_updates(
    configuration: Configuration, storage: torch.dtype, items: Sequence[Item], pairs: int
) -> Specialization:
    chosen = configuration.update
    vectors = LEAST_VECTORS
    while vectors < 2 * pairs:
        vectors *= 2
    constants = {
        **_read_as(storage),
        "LAYOUTS": _bits(_found(items, UPDATE_ITEM, "layout")),
        "VECTORS": vectors,
        "ROWS": chosen.rows,
        "COLUMNS": chosen.columns,
        "PRECISION": configuration.forward_precision,
    }
    return Specialization(constants, {"num_warps": chosen.warps})
