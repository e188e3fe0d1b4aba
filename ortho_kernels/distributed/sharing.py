"""The penalties of replicated weights (DDP), shared out: each rank computes its part, and one all-reduce makes it whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..backends.protocol import Backend, Into, Penalties
from ..backends.registry import serving
from ..options import SO, SRIP
from ..weight_checks import PLAIN, is_sharded
from ..weight_views import WeightViews
from .agreement import check_agreement
from .exact_sum import ZerosToSum
from .parts import Part


class Sharing:
    """A group of processes that share out the matrices of a penalty.

    Args:
        group: a `torch.distributed.ProcessGroup` of which this process is a member.

    Raises:
        TypeError, ValueError, RuntimeError: for what is no such group.
    """

    def __init__(self, group: Any) -> None:
        _check_group(group)
        self.group, self.rank, self.ranks = group, dist.get_rank(group), dist.get_world_size(group)
        self._agreed: set[tuple[str, ...]] = set()
        self._known: tuple[tuple, SharedPenalties] | None = None  # the last one, and what it was made for

    def penalties(
        self, names: tuple[str, ...], weights: list[Tensor], views: WeightViews, options: SO | SRIP
    ) -> SharedPenalties:
        """Those of these weights, shared out: a collective where they are not the weights of a call before.

        Raises:
            ValueError: where the ranks have different weights.
            RuntimeError: where the call is traced or transformed.
        """
        if torch.compiler.is_compiling():
            _refuse_tracing()
        if torch._C._are_functorch_transforms_active():
            raise RuntimeError(f"torch.func can't transform what ranks share out: {_CURE}")
        local = serving(views, options)  # of all weights, so the result is the same whatever the part
        made_for = (names, views, local, [weight.requires_grad for weight in weights])
        if self._known is not None and self._known[0] == made_for:
            return self._known[1]
        self._agree(names, weights, views, options)
        penalties = SharedPenalties(self, local, Part(weights, views, options, self.rank, self.ranks))
        self._known = made_for, penalties
        return penalties

    def refuse_sharded(self, names: Sequence[str], weights: Sequence[Tensor]) -> None:
        """Raises `ValueError`, naming the weight, where processes hold parts of it already."""
        if PLAIN.issuperset(map(type, weights)):
            return
        for name, weight in zip(names, weights, strict=True):
            if is_sharded(weight):
                raise ValueError(f"{name} is a DTensor: sharded weights are shared out by themselves; leave share out")

    def _agree(self, names: tuple[str, ...], weights: list[Tensor], views: WeightViews, options: SO | SRIP) -> None:
        """Once for each list of weights, on all ranks in the same call: what is kept elsewhere may differ between them."""
        forms = zip(names, views.views, views.gradient_forms, weights, strict=True)
        description = (
            repr(options),
            *(
                f"{name}: {view} with strides {strides}, {dtype}{', trained' if weight.requires_grad else ', frozen'}"
                for name, view, (strides, dtype), weight in forms
            ),
        )
        if description not in self._agreed:
            check_agreement(description, self.group)
            self._agreed.add(description)

    def __deepcopy__(self, _: Any) -> Sharing:
        """A group has no copies."""
        return Sharing(self.group)


class SharedPenalties(Penalties):
    """Values of all matrices, and gradients of all weights, of which this rank computes its part by a local backend.

    In a loss each rank's own gradient is multiplied by the number of ranks, and the others' are left out: the mean over
    ranks, which DDP takes, is their sum.
    """

    def __init__(self, sharing: Sharing, local: Backend, part: Part) -> None:
        self.part = part
        self._local, self._group, self._ranks = local, sharing.group, sharing.ranks

    def soft_orthogonality(self, weights: list[Tensor], views: WeightViews, options: SO) -> Tensor:
        def compute(own: list[Tensor]) -> tuple[Tensor, None]:
            return self._local.soft_orthogonality(own, self.part.views, options), None

        values, _ = self._values(weights, views, compute)
        return values

    def srip(
        self, weights: list[Tensor], views: WeightViews, options: SRIP, start: Tensor, follow: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        def compute(own: list[Tensor]) -> tuple[Tensor, Tensor | None]:
            return self._local.srip(own, self.part.views, options, self.part.vectors_of(start), follow)

        return self._values(weights, views, compute, start if follow else None)

    def soft_orthogonality_gradients(
        self, weights: list[Tensor], views: WeightViews, options: SO, into: Into
    ) -> Tensor:
        def compute(own: list[Tensor], own_into: Into) -> tuple[Tensor, None]:
            return self._local.soft_orthogonality_gradients(own, self.part.views, options, own_into), None

        values, _ = self._gradients(weights, views, into, compute)
        return values

    def srip_gradients(
        self, weights: list[Tensor], views: WeightViews, options: SRIP, start: Tensor, into: Into, follow: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        def compute(own: list[Tensor], own_into: Into) -> tuple[Tensor, Tensor | None]:
            vectors = self.part.vectors_of(start)
            return self._local.srip_gradients(own, self.part.views, options, vectors, own_into, follow)

        return self._gradients(weights, views, into, compute, start if follow else None)

    def _values(
        self, weights: list[Tensor], views: WeightViews, compute: Callable[..., Any], start: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Differentiable values, and where the vectors from `start` end: one collective, none backward."""
        zeros = _zeros(views, start, [])
        own = self.part.of(weights)
        values, ends = compute(own) if own else (_none(views), None)
        self.part.write(zeros.tensors, values.detach(), ends)
        summed, *rest = zeros.sum_(self._group)
        values = _OwnGradient.apply(summed, values, self.part.matrices, self._ranks, *weights)
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
        wanted = [index for index, target in enumerate(into.targets) if target is not None]
        zeros = _zeros(views, start, [weights[index] for index in wanted])
        numbers, gradients = zeros.tensors[: -len(wanted) or None], zeros.tensors[len(zeros.tensors) - len(wanted) :]
        placed: list[Tensor | None] = [None] * len(weights)
        for index, gradient in zip(wanted, gradients, strict=True):
            placed[index] = gradient
        factor = into.factor
        if isinstance(factor, Tensor) and factor.dim():
            factor = factor.index_select(0, self.part.matrices)
        own = self.part.of(weights)
        values, ends = compute(own, Into(self.part.of(placed), factor)) if own else (_none(views), None)
        self.part.write(numbers, values, ends)
        zeros.sum_(self._group)
        targets = [target for target in into.targets if target is not None]
        if into.accumulate:
            torch._foreach_add_(targets, gradients)
        else:
            torch._foreach_copy_(targets, gradients)
        return numbers[0], numbers[1] if start is not None else None


class _OwnGradient(torch.autograd.Function):
    """The values of all ranks, of which this one's alone have a gradient.

    The weights take part without one. DDP waits for all parameters that any rank uses, and is told so of each.
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


def _check_group(group: Any) -> None:
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError(
            "share takes a process group, and none is initialized: call torch.distributed.init_process_group first"
        )
    if group == dist.GroupMember.NON_GROUP_MEMBER or (
        isinstance(group, dist.ProcessGroup) and dist.get_rank(group) < 0
    ):
        raise ValueError("share is a process group of which this process is no member: make the penalty on its members")
    if not isinstance(group, dist.ProcessGroup):
        raise TypeError(
            "share must be a torch.distributed.ProcessGroup, such as torch.distributed.group.WORLD or mesh.get_group(name); "
            f"got {group!r:.60}"
        )


_CURE = "call penalty.eval() for values that each rank computes, or accumulate_gradients outside"


def _refuse_tracing() -> bool:
    raise RuntimeError(
        "a compiled call can't be shared out: outside of the compiled function, call penalty.accumulate_gradients() after "
        "the backward, or add penalty() to what the function returns"
    )


# As torch.compiler.assume_constant_result does: it runs, and so raises, while the call is traced.
_refuse_tracing._dynamo_marked_constant = True  # type: ignore[attr-defined]
