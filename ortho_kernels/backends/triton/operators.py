"""The operators of `ops.py` in Triton kernels, each launch for all weights of one dtype.

Soft orthogonality is one launch, and two backward. SRIP is two launches for each application of R, one before and one after
them, and one backward.

Backwards write `gradients`, or add to them where `accumulate`: one tensor for each wanted weight, of its device, dtype and
shape, its columns in the order of the weight's at one stride. `factors`: float32, by which each matrix's is multiplied.
`views` are those of the weights, where the caller has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from ...weight_checks import check_storage
from ...weight_views import WeightViews
from . import specialization
from .kernels import (
    apply_residuals,
    begin_iteration,
    combine_sums,
    finish_iteration,
    rank_updates,
    residual_products,
    spread_residuals,
)
from .kernels import residuals as residuals_kernel
from .launch import Launch
from .records import State
from .rows import Queue
from .tables import weight_place


def soft_orthogonality(
    weights: Sequence[Tensor],
    groups: Sequence[int],
    sides: Sequence[int],
    diagonal: float,
    off_diagonal: float,
    keep: bool,
    *,
    views: WeightViews | None = None,
) -> tuple[Tensor, Tensor]:
    place = weight_place(weights, groups, sides, views)
    device, plan, new = place.device, place.device.plan, place.device.new
    queue = Queue.of(device.device)
    values = new(len(plan.matrices))
    residuals = new(plan.total_triangle if keep else 0)
    partial_sums = new(plan.residuals.partial_sums, torch.float64)
    squares = new(plan.residual_blocks, torch.float64)
    block_counters, matrix_counters = device.counters(queue)
    tables = place.tables(queue)
    specialize = partial(specialization.residuals, plan, keep)
    with device.current():
        for launch in device.launches(("residuals", keep), lambda: plan.residuals.items, specialize, queue):
            launch.run(
                residuals_kernel, tables, launch.items.read_on(queue), values, residuals, partial_sums, squares,
                block_counters, matrix_counters, float(diagonal), float(off_diagonal),
            )  # fmt: skip
    return values, residuals


def soft_orthogonality_backward(
    factors: Tensor,
    weights: Sequence[Tensor],
    groups: Sequence[int],
    sides: Sequence[int],
    residuals: Tensor,
    precision: int,
    gradients: Sequence[Tensor],
    wanted: Sequence[int],
    accumulate: bool,
    *,
    views: WeightViews | None = None,
) -> None:
    place = weight_place(weights, groups, sides, views)
    device, plan = place.device, place.device.plan
    queue = Queue.of(device.device)
    _check(factors, len(plan.matrices), "factors")
    _check(residuals, plan.total_triangle, "residuals")
    into = device.gradient_place(gradients, wanted, queue)

    def find() -> list[Launch]:
        key = "products", into.wanted, precision, *into.access.items()
        specialize = partial(specialization.residual_products, plan, into.access, precision)
        return device.launches(key, lambda: plan.products(into.wanted, precision), specialize, queue)

    def find_spreads() -> list[Launch]:
        key, specialize = ("spreads", into.wanted, precision), partial(specialization.spread_residuals, plan, precision)
        return device.launches(key, lambda: plan.spreads(into.wanted), specialize, queue)

    tables = place.tables(queue)
    spreads = into.launches(("spreads", precision), find_spreads)
    products = into.launches(("products", precision), find)
    with device.current():
        for spread, launch in zip(spreads, products, strict=True):
            dense = device.new(plan.total_dense, specialization.dense_dtype(plan, launch.storage, precision))
            spread.run(spread_residuals, spread.items.read_on(queue), tables, residuals, dense)
            launch.run(
                residual_products, tables, launch.items.read_on(queue), factors, dense,
                gradients[into.first[launch.storage]], into.views.read_on(queue), int(accumulate),
            )  # fmt: skip


def srip(
    weights: Sequence[Tensor],
    groups: Sequence[int],
    sides: Sequence[int],
    start: Tensor,
    iterations: int,
    through: bool,
    keep: bool,
    *,
    views: WeightViews | None = None,
) -> tuple[Tensor, Tensor]:
    if iterations < 1:
        raise RuntimeError(f"iterations: expected at least 1, got {iterations}")
    place = weight_place(weights, groups, sides, views)
    device, plan, new = place.device, place.device.plan, place.device.new
    queue = Queue.of(device.device)
    _check(start, plan.total_order, "start")
    pairs = (iterations if through else 1) if keep else 0
    state = State(
        sigmas=new(len(plan.matrices)),
        kept=new(2 * pairs * plan.total_order),
        vectors=new(2 * iterations * plan.total_order, torch.float64),
        sums=new(plan.sums, torch.float64),
        squares=new((iterations + 1) * plan.squares, torch.float64),
    )
    tables = place.tables(queue)
    passes = device.launches("passes", plan.passes, partial(specialization.passes, plan), queue)
    combines = device.launches("combines", plan.combines, partial(specialization.combines, plan), queue)
    with device.current():
        for each, combine in zip(passes, combines, strict=True):
            pass_items, combine_items = each.items.read_on(queue), combine.items.read_on(queue)
            combine.run(begin_iteration, combine_items, tables, start, state, iterations)
            for step in range(iterations + max(pairs, 1) - 1):
                each.run(apply_residuals, pass_items, tables, state, step, iterations)
                combine.run(combine_sums, combine_items, tables, state, step, iterations)
            combine.run(finish_iteration, combine_items, tables, state, iterations, pairs)
    return state.sigmas, state.kept


def srip_backward(
    factors: Tensor,
    weights: Sequence[Tensor],
    groups: Sequence[int],
    sides: Sequence[int],
    vectors: Tensor,
    pairs: int,
    gradients: Sequence[Tensor],
    wanted: Sequence[int],
    accumulate: bool,
    *,
    views: WeightViews | None = None,
) -> None:
    place = weight_place(weights, groups, sides, views)
    device, plan = place.device, place.device.plan
    queue = Queue.of(device.device)
    _check(factors, len(plan.matrices), "factors")
    _check(vectors, 2 * pairs * plan.total_order, "vectors")
    into = device.gradient_place(gradients, wanted, queue)

    def find() -> list[Launch]:
        key = "updates", into.wanted, pairs, *into.access.items()
        specialize = partial(specialization.rank_updates, plan, into.access, pairs)
        return device.launches(key, lambda: plan.updates(into.wanted), specialize, queue)

    tables = place.tables(queue)
    with device.current():
        for launch in into.launches(("updates", pairs), find):
            launch.run(
                rank_updates, tables, launch.items.read_on(queue), factors, vectors,
                gradients[into.first[launch.storage]], into.views.read_on(queue), pairs, int(accumulate),
            )  # fmt: skip


def _check(tensor: Tensor, count: int, name: str) -> None:
    if tensor.dtype is not torch.float32 or not tensor.is_contiguous() or tensor.numel() != count:
        raise RuntimeError(
            f"{name}: expected {count} contiguous numbers of float32, got {tensor.numel()} of {tensor.dtype}"
            f"{'' if tensor.is_contiguous() else ', not contiguous'}"
        )
    check_storage([tensor], [name])
