"""The penalties of lists with sharded weights: collectives around a backend, which computes what is here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...backends.protocol import Backend, Into, Penalties
from ...ops import SecondDerivative
from ...options import SO, SRIP
from ...weight_views import WeightViews, weight_views
from .local_weights import LocalWeights, times
from .shard_group import ShardGroup, entry_indices, matrix_indices
from .weight import ShardedWeight


class ShardedPenalties(Penalties):
    """Serves lists with a `ShardedWeight` among them. Every call is a collective of the groups that shard the weights.

    Gradients are computed along with the values, so no backward needs a collective.

    Args:
        local: the backend of what is here.
        views: those of the weights.
    """

    def __init__(self, local: Backend, views: WeightViews, options: SO | SRIP) -> None:
        self._local = local
        self._here: list[int] = []  # the weights that every rank holds in full, and computes by itself
        groups: dict[Any, list[int]] = {}  # by group and dtype: a buffer that is sent has one
        for index, layout in enumerate(views.layouts):
            if layout is None or not layout.dims:
                self._here.append(index)
            else:
                groups.setdefault((layout.key, views.gradient_forms[index][1]), []).append(index)
        self._indices = matrix_indices(self._here, views)
        self._entries = entry_indices(self._here, views, options.side) if isinstance(options, SRIP) else _NONE
        self._groups = [ShardGroup(local, views, options, indices) for indices in groups.values()]

    def soft_orthogonality(self, weights: list[Any], views: WeightViews, options: SO) -> Tensor:
        def compute(into: Into) -> tuple[Tensor, None]:
            return self.soft_orthogonality_gradients(weights, views, options, into), None

        values, _ = _differentiable(weights, views, compute)
        return values

    def srip(
        self, weights: list[Any], views: WeightViews, options: SRIP, start: Tensor, follow: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        def compute(into: Into) -> tuple[Tensor, Tensor | None]:
            return self.srip_gradients(weights, views, options, start, into, follow)

        return _differentiable(weights, views, compute)

    @torch.no_grad()
    def soft_orthogonality_gradients(self, weights: list[Any], views: WeightViews, options: SO, into: Into) -> Tensor:
        held = LocalWeights(weights, into)
        factors = into.factors(views)
        values = torch.zeros_like(factors)
        if self._here:
            own, own_views, own_into = self._of_here(held, views, factors)
            found = self._local.soft_orthogonality_gradients(own, own_views, options, own_into)
            values[self._indices] = found.to(values.dtype)
        for each in self._groups:
            values[each.indices] = each.soft_orthogonality(held, options, factors[each.indices])
        held.finish()
        return values

    @torch.no_grad()
    def srip_gradients(
        self, weights: list[Any], views: WeightViews, options: SRIP, start: Tensor, into: Into, follow: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        held = LocalWeights(weights, into)
        factors = into.factors(views)
        values, last = torch.zeros_like(factors), torch.zeros_like(start)
        if self._here:
            own, own_views, own_into = self._of_here(held, views, factors)
            vectors = start[self._entries].to(own_views.dtype)
            found, end = self._local.srip_gradients(own, own_views, options, vectors, own_into, follow)
            values[self._indices] = found.to(values.dtype)
            if end is not None:
                last[self._entries] = end.to(last.dtype)
        for each in self._groups:
            values[each.indices], end = each.srip(held, options, start[each.entries], factors[each.indices], follow)
            if end is not None:
                last[each.entries] = end
        held.finish()
        return values, last if follow else None

    def _of_here(
        self, held: LocalWeights, views: WeightViews, factors: Tensor
    ) -> tuple[list[Tensor], WeightViews, Into]:
        """The weights that are here in full, as the local backend takes them."""
        own = [held.weights[index].flatten(0, 1) for index in self._here]
        targets = [held.targets[index] for index in self._here]
        flat = [target if target is None else target.flatten(0, 1) for target in targets]
        groups = [views.groups[index] for index in self._here]
        return own, weight_views(own, groups), Into(flat, factors[self._indices], held.accumulate)


_NONE = torch.zeros(0, dtype=torch.int64, device="cpu")
_ONCE = (
    "penalties of sharded weights can be differentiated once; for second derivatives give their full_tensor(), and run the "
    "forward under ortho_kernels.use_backend('torch')"
)


def _differentiable(
    weights: Sequence[Any], views: WeightViews, compute: Callable[[Into], tuple[Tensor, Tensor | None]]
) -> tuple[Tensor, Tensor | None]:
    """The values with a graph: the gradients are computed now, and multiplied by what comes in later."""
    tensors = [weight.local if isinstance(weight, ShardedWeight) else weight for weight in weights]
    if not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in tensors):
        return compute(Into([None] * len(weights)))
    return _Computed.apply(weights, views.groups, compute, *tensors)


class _Computed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Sequence[Any], groups: list[int], compute: Any, *tensors: Tensor) -> Any:
        needed = ctx.needs_input_grad[3:]
        targets = [torch.empty_like(part) if need else None for part, need in zip(tensors, needed, strict=True)]
        values, last = compute(Into(targets))
        ctx.weights, ctx.groups, ctx.tensors = weights, groups, tensors
        # So they are freed by the backward, and not with a loss that is kept to be logged.
        ctx.save_for_backward(*targets)
        ctx.set_materialize_grads(False)
        if last is not None:
            ctx.mark_non_differentiable(last)
        return values, last

    @staticmethod
    def backward(ctx: Any, factors: Tensor | None, _: Any) -> Any:
        if factors is None:
            return (None,) * (3 + len(ctx.weights))
        targets = ctx.saved_tensors

        def compute() -> tuple[Tensor | None, ...]:
            each = zip(targets, ctx.weights, factors.split(ctx.groups), strict=True)
            return tuple(None if target is None else times(target, weight, own) for target, weight, own in each)

        gradients = SecondDerivative.apply(compute, _ONCE, *ctx.tensors) if torch.is_grad_enabled() else compute()
        return None, None, None, *gradients
