"""SO and SRIP of replicated weights: each rank computes its part, and one all-reduce makes values and gradients whole."""

from __future__ import annotations

from collections.abc import Callable
from itertools import compress
from typing import Any

import torch
from torch import Tensor

from ...backends.protocol import Backend, Into, Penalties
from ...options import SO, SRIP
from ...weight_views import WeightViews
from ..exact_sum import ZerosToSum
from .owned import Owned


class ReplicatedPenalties(Penalties):
    """Values of all matrices, and gradients of all weights, of which this rank computes its part by a local backend.

    In a loss each rank's own gradient is multiplied by the number of ranks, and the others' are left out: the mean over
    ranks, which DDP takes, is their sum.
    """

    def __init__(self, local: Backend, owned: Owned, group: Any) -> None:
        self._local, self._owned, self._group = local, owned, group

    def soft_orthogonality(self, weights: list[Tensor], views: WeightViews, options: SO) -> Tensor:
        def compute(own: list[Tensor]) -> tuple[Tensor, None]:
            return self._local.soft_orthogonality(own, self._owned.views, options), None

        values, _ = self._values(weights, views, compute)
        return values

    def srip(
        self, weights: list[Tensor], views: WeightViews, options: SRIP, start: Tensor, follow: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        def compute(own: list[Tensor]) -> tuple[Tensor, Tensor | None]:
            return self._local.srip(own, self._owned.views, options, self._owned.vectors_of(start), follow)

        return self._values(weights, views, compute, start if follow else None)

    def soft_orthogonality_gradients(
        self, weights: list[Tensor], views: WeightViews, options: SO, into: Into
    ) -> Tensor:
        def compute(own: list[Tensor], own_into: Into) -> tuple[Tensor, None]:
            return self._local.soft_orthogonality_gradients(own, self._owned.views, options, own_into), None

        values, _ = self._gradients(weights, views, into, compute)
        return values

    def srip_gradients(
        self, weights: list[Tensor], views: WeightViews, options: SRIP, start: Tensor, into: Into, follow: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        def compute(own: list[Tensor], own_into: Into) -> tuple[Tensor, Tensor | None]:
            vectors = self._owned.vectors_of(start)
            return self._local.srip_gradients(own, self._owned.views, options, vectors, own_into, follow)

        return self._gradients(weights, views, into, compute, start if follow else None)

    def _values(
        self, weights: list[Tensor], views: WeightViews, compute: Callable[..., Any], start: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Differentiable values, and where the vectors from `start` end: one collective, none backward."""
        zeros = _zeros(views, start, [])
        own = self._owned.of(weights)
        values, ends = compute(own) if own else (_none(views), None)
        self._owned.write(zeros.tensors, values.detach(), ends)
        summed, *rest = zeros.sum_(self._group)
        values = _OwnGradient.apply(summed, values, self._owned.matrices, len(self._owned.costs), *weights)
        return values, rest[0] if start is not None else None

    @torch.no_grad()
    def _gradients(
        self,
        weights: list[Tensor],
        views: WeightViews,
        into: Into,
        compute: Callable[..., Any],
        start: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Likewise, and the gradients of all weights in the same collective."""
        wanted = [target is not None for target in into.targets]
        zeros = _zeros(views, start, list(compress(weights, wanted)))
        count = 1 if start is None else 2
        numbers, gradients = zeros.tensors[:count], zeros.tensors[count:]
        made = iter(gradients)
        placed = [next(made) if is_wanted else None for is_wanted in wanted]
        factor = into.factor
        if isinstance(factor, Tensor) and factor.dim():
            factor = factor.index_select(0, self._owned.matrices)
        own = self._owned.of(weights)
        values, ends = compute(own, Into(self._owned.of(placed), factor)) if own else (_none(views), None)
        self._owned.write(numbers, values, ends)
        zeros.sum_(self._group)
        targets = [target for target in into.targets if target is not None]
        if targets:  # none where all weights are frozen
            write = torch._foreach_add_ if into.accumulate else torch._foreach_copy_
            write(targets, gradients)
        return numbers[0], numbers[1] if start is not None else None


class _OwnGradient(torch.autograd.Function):
    """The values of all ranks, of which this one's alone have a gradient.

    All weights take part, those of other ranks without a gradient: DDP waits for each parameter on every rank.
    """

    @staticmethod
    def forward(ctx: Any, summed: Tensor, own: Tensor, places: Tensor, ranks: int, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.ranks, ctx.weights = ranks, len(weights)
        return summed.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        [places] = ctx.saved_tensors
        return None, ctx.ranks * gradient.index_select(0, places), None, None, *[None] * ctx.weights


def _zeros(views: WeightViews, start: Tensor | None, gradients: list[Tensor]) -> ZerosToSum:
    """Of all values, of all vectors where a start follows, and of gradients."""
    values = torch.empty(views.matrix_count, dtype=views.dtype, device="meta")
    return ZerosToSum([values, *([] if start is None else [start]), *gradients], views.device)


def _none(views: WeightViews) -> Tensor:
    """The values of a rank that has no work."""
    return torch.zeros(0, dtype=views.dtype, device=views.device)
