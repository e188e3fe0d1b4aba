"""The operators of `ops.py` in Triton kernels: one launch forward, one backward, for all weights of one dtype.

Backwards write `gradients`, or add to them where `accumulate`: one tensor for each wanted weight, of its device, dtype and
shape, its columns in the order of the weight's at one stride. `factors`: float32, by which each matrix's is multiplied.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from ...weight_checks import check_storage
from . import specialization
from .kernels import apply_all, begin_all, combine_all, finish_all, iterate, rank_updates, residual_products
from .kernels import residuals as residuals_kernel
from .launch import Launch
from .records import State, Tables
from .specialization import interpreting
from .tables import DevicePlan, GradientTable, device_plan


def soft_orthogonality(
    weights: Sequence[Tensor],
    groups: Sequence[int],
    sides: Sequence[int],
    diagonal: float,
    off_diagonal: float,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    device = device_plan(weights, groups, sides)
    plan, new = device.plan, device.new
    values = new(len(plan.matrices))
    residuals = new(plan.total_triangle if keep else 0)
    partial_sums = new(plan.residuals.partial_sums, torch.float64)
    squares = new(sum(plan.residuals.blocks_of), torch.float64)
    block_counters, matrix_counters, _ = device.counters()
    tables = device.tables(weights)
    specialize = partial(specialization.residuals, plan, keep)
    with device.current():
        for launch in device.launches(("residuals", keep), lambda: plan.residuals.items, specialize):
            launch.run(
                residuals_kernel, tables, launch.items, values, residuals, partial_sums, squares, block_counters,
                matrix_counters, float(diagonal), float(off_diagonal),
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
) -> None:
    device = device_plan(weights, groups, sides)
    plan = device.plan
    _check(factors, len(plan.matrices), "factors")
    _check(residuals, plan.total_triangle, "residuals")
    wants, table = _gradient_table(device, gradients, wanted)
    key = "products", wants, precision, *table.access.items()
    specialize = partial(specialization.residual_products, plan, table.access, precision)
    tables = device.tables(weights)
    with device.current():
        for launch in device.launches(key, lambda: plan.products(wants, precision), specialize):
            launch.run(
                residual_products, tables, launch.items, factors, residuals, table.first[launch.storage], table.views,
                int(accumulate),
            )  # fmt: skip


def srip(
    weights: Sequence[Tensor],
    groups: Sequence[int],
    sides: Sequence[int],
    start: Tensor,
    iterations: int,
    through: bool,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    if iterations < 1:
        raise RuntimeError(f"iterations: expected at least 1, got {iterations}")
    device = device_plan(weights, groups, sides)
    plan, new = device.plan, device.new
    _check(start, plan.total_order, "start")
    pairs = (iterations if through else 1) if keep else 0
    state = State(
        sigmas=new(len(plan.matrices)),
        kept=new(2 * pairs * plan.total_order),
        vectors=new(2 * iterations * plan.total_order, torch.float64),
        sums=new(plan.sums, torch.float64),
        squares=new((iterations + 1) * plan.squares, torch.float64),
    )
    tables = device.tables(weights)
    passes = device.launches("passes", plan.passes, partial(specialization.passes, plan))
    combines = device.launches("combines", plan.combines, partial(specialization.combines, plan))
    with device.current():
        for each, combine in zip(passes, combines, strict=True):
            _iterate(device, tables, each, combine, start, state, iterations, pairs)
    return state.sigmas, state.kept


def _iterate(
    device: DevicePlan,
    tables: Tables,
    passes: Launch,
    combines: Launch,
    start: Tensor,
    state: State,
    iterations: int,
    pairs: int,
) -> None:
    if device.plan.configuration.cooperative:
        _, _, barrier = device.counters()
        passes.run(
            iterate, tables, passes.items, passes.programs, combines.items, combines.programs, start, state, barrier,
            iterations, pairs, programs=1 if interpreting() else device.plan.cooperative_programs(passes.programs),
        )  # fmt: skip
        return
    combines.run(begin_all, tables, combines.items, start, state, iterations)
    for step in range(iterations + max(pairs, 1) - 1):
        passes.run(apply_all, tables, passes.items, state, step, iterations)
        combines.run(combine_all, tables, combines.items, state, step, iterations)
    combines.run(finish_all, tables, combines.items, state, iterations, pairs)


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
) -> None:
    device = device_plan(weights, groups, sides)
    plan = device.plan
    _check(factors, len(plan.matrices), "factors")
    _check(vectors, 2 * pairs * plan.total_order, "vectors")
    wants, table = _gradient_table(device, gradients, wanted)
    key = "updates", wants, pairs, *table.access.items()
    specialize = partial(specialization.rank_updates, plan, table.access, pairs)
    tables = device.tables(weights)
    with device.current():
        for launch in device.launches(key, lambda: plan.updates(wants), specialize):
            launch.run(
                rank_updates, tables, launch.items, factors, vectors, table.first[launch.storage], table.views, pairs,
                int(accumulate),
            )  # fmt: skip


def _gradient_table(
    device: DevicePlan, gradients: Sequence[Tensor], wanted: Sequence[int]
) -> tuple[tuple[bool, ...], GradientTable]:
    wants = tuple(map(bool, wanted))
    indices = [index for index, want in enumerate(wants) if want]
    if len(wants) != len(device.plan.views) or len(gradients) != len(indices):
        raise RuntimeError(
            f"expected `wanted` for {len(device.plan.views)} weights and a gradient for each that is wanted, got "
            f"{len(gradients)} gradients and {len(wants)} `wanted`, of which {len(indices)} are"
        )
    check_storage(gradients, [f"the gradient of weights[{index}]" for index in indices])
    return wants, device.gradient_table(gradients, wants)


def _check(tensor: Tensor, count: int, name: str) -> None:
    if tensor.dtype is not torch.float32 or not tensor.is_contiguous() or tensor.numel() != count:
        raise RuntimeError(
            f"{name}: expected {count} contiguous numbers of float32, got {tensor.numel()} of {tensor.dtype}"
            f"{'' if tensor.is_contiguous() else ', not contiguous'}"
        )
    check_storage([tensor], [name])
