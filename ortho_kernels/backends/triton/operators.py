"""The operators of `ops.py` in Triton kernels: one launch forward, one backward, for all weights of one dtype."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
import triton
from torch import Tensor

from ...weight_checks import check_storage
from . import specialization
from .kernels.power_iteration import apply_all, begin_all, combine_all, finish_all, iterate
from .kernels.product import residual_products
from .kernels.rank_update import rank_updates
from .kernels.residual import residuals as residuals_kernel
from .tables import Launch, Tables, tables_for


def interpreting() -> bool:
    return triton.knobs.runtime.interpret


def soft_orthogonality(
    weights: Sequence[Tensor],
    groups: Sequence[int],
    sides: Sequence[int],
    diagonal: float,
    off_diagonal: float,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    tables = tables_for(weights, groups, sides)
    plan, new = tables.plan, _allocator(tables)
    values = new(len(plan.matrices))
    residuals = new(plan.total_triangle if keep else 0)
    partial_sums = new(plan.residuals.partial_sums, torch.float64)
    squares = new(sum(plan.residuals.groups_of), torch.float64)
    tile_counters, matrix_counters, _ = tables.counters()
    with _on(tables):
        for launch in tables.launches("residuals", lambda: plan.residuals.items):
            constants, options = specialization.residuals(plan, launch.storage, launch.rows, keep, interpreting())
            residuals_kernel[(launch.programs,)](
                tables.addresses(weights), tables.matrices(), launch.items, values, residuals, partial_sums, squares,
                tile_counters, matrix_counters, float(diagonal), float(off_diagonal), **constants, **options,
            )  # fmt: skip
    return values, residuals


def soft_orthogonality_backward(
    grad_values: Tensor,
    weights: Sequence[Tensor],
    groups: Sequence[int],
    sides: Sequence[int],
    residuals: Tensor,
    precision: int,
    wanted: Sequence[int],
) -> list[Tensor]:
    tables = tables_for(weights, groups, sides)
    plan = tables.plan
    _check(grad_values, len(plan.matrices), "grad_values")
    _check(residuals, plan.total_triangle, "residuals")
    wants = tuple(map(bool, wanted))
    gradients = Gradients(tables, weights, wants)
    with _on(tables):
        for launch in tables.launches(("products", wants, precision), lambda: plan.products(wants, precision)):
            constants, options = specialization.residual_products(
                plan, launch.storage, launch.rows, precision, interpreting()
            )
            residual_products[(launch.programs,)](
                tables.addresses(weights), tables.matrices(wants), launch.items, grad_values, residuals,
                gradients.buffers[launch.storage], **constants, **options,
            )  # fmt: skip
    return gradients.finish()


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
    tables = tables_for(weights, groups, sides)
    plan, new = tables.plan, _allocator(tables)
    _check(start, plan.total_order, "start")
    pairs = iterations if through else 1
    values = new(len(plan.matrices))
    kept = new(2 * pairs * plan.total_order if keep else 0)
    steps = 2 * iterations - 1 if through and keep else iterations
    total_squares = sum(plan.passes.squares_of)
    vectors = new(2 * iterations * plan.total_order, torch.float64)
    squares = new((iterations + 1) * total_squares, torch.float64)
    sums = new(plan.pass_sums, torch.float64)
    combines = {launch.storage: launch for launch in tables.launches("combines", lambda: plan.passes.combines)}
    with _on(tables):
        for launch in tables.launches("passes", lambda: plan.passes.passes):
            _iterate(
                tables, launch, combines[launch.storage], tables.addresses(weights), start, values, kept, vectors, sums,
                squares, total_squares, iterations, steps, pairs if keep else 0,
            )  # fmt: skip
    return values, kept


def _iterate(
    tables: Tables,
    launch: Launch,
    combines: Launch,
    addresses: Tensor,
    start: Tensor,
    values: Tensor,
    kept: Tensor,
    vectors: Tensor,
    sums: Tensor,
    squares: Tensor,
    total_squares: int,
    iterations: int,
    steps: int,
    pairs: int,
) -> None:
    plan = tables.plan
    matrices, entry_orders = tables.matrices(), tables.entry_orders()
    constants, options = specialization.passes(plan, launch.storage, launch.rows)
    totals = (plan.total_order, total_squares)
    if plan.configuration.cooperative:
        _, _, barrier = tables.counters()
        programs = 1 if interpreting() else plan.cooperative_programs(launch.programs)
        cooperative = {} if interpreting() else {"launch_cooperative_grid": True}
        iterate[(programs,)](
            addresses, matrices, launch.items, launch.programs, combines.items, combines.programs, entry_orders, start,
            values, kept, vectors, sums, squares, barrier, *totals, iterations, steps, pairs, **constants, **options,
            **cooperative,
        )  # fmt: skip
        return
    begin_all[(combines.programs,)](combines.items, matrices, entry_orders, start, vectors, squares)
    for step in range(steps):
        apply_all[(launch.programs,)](
            launch.items, step, iterations, addresses, matrices, vectors, sums, plan.total_order, **constants, **options
        )
        combine_all[(combines.programs,)](combines.items, step, iterations, matrices, vectors, sums, squares, *totals)
    finish_all[(combines.programs,)](
        combines.items, iterations, pairs, matrices, entry_orders, values, kept, vectors, squares, *totals
    )


def srip_backward(
    grad_values: Tensor,
    weights: Sequence[Tensor],
    groups: Sequence[int],
    sides: Sequence[int],
    vectors: Tensor,
    pairs: int,
    wanted: Sequence[int],
) -> list[Tensor]:
    tables = tables_for(weights, groups, sides)
    plan = tables.plan
    _check(grad_values, len(plan.matrices), "grad_values")
    _check(vectors, 2 * pairs * plan.total_order, "vectors")
    wants = tuple(map(bool, wanted))
    gradients = Gradients(tables, weights, wants)
    with _on(tables):
        for launch in tables.launches(("updates", wants), lambda: plan.updates(wants)):
            constants, options = specialization.rank_updates(plan, launch.storage, launch.rows, pairs)
            rank_updates[(launch.programs,)](
                tables.addresses(weights), tables.matrices(wants), launch.items, tables.entry_orders(), grad_values,
                vectors, gradients.buffers[launch.storage], pairs, **constants, **options,
            )  # fmt: skip
    return gradients.finish()


class Gradients:
    """Gradients of the weights that are wanted, and empty tensors for the others.

    All gradients of one dtype lie in one buffer, at places that the plan knows: no addresses are copied to the device in
    a backward, and it can be captured in a graph.
    """

    def __init__(self, tables: Tables, weights: Sequence[Tensor], wanted: Sequence[bool]):
        self._plan, self._weights, self._wanted = tables.plan, weights, wanted
        self._places, sizes = tables.plan.gradient_places(wanted)
        self.buffers = {
            storage: torch.empty(size, dtype=storage, device=tables.device) for storage, size in sizes.items()
        }

    def finish(self) -> list[Tensor]:
        results = []
        for weight, layout, place, wanted in zip(
            self._weights, self._plan.gradients, self._places, self._wanted, strict=True
        ):
            buffer = self.buffers[weight.dtype]
            if not wanted:
                results.append(weight.new_empty(0))
                continue
            written = buffer.as_strided(layout.shape, layout.written_strides, place)
            results.append(torch.empty_like(weight).copy_(written) if layout.copied else written)
        return results


def _allocator(tables: Tables):
    def new(count: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(count, dtype=dtype, device=tables.device)

    return new


def _on(tables: Tables):
    """Launches go to the weights' device, whichever is current."""
    return torch.cuda.device(tables.device) if tables.device.type == "cuda" else nullcontext()


def _check(tensor: Tensor, count: int, name: str) -> None:
    if tensor.dtype is not torch.float32 or not tensor.is_contiguous() or tensor.numel() != count:
        raise RuntimeError(
            f"{name}: expected {count} contiguous numbers of float32, got {tensor.numel()} of {tensor.dtype}"
            f"{'' if tensor.is_contiguous() else ', not contiguous'}"
        )
    check_storage([tensor], [name])
