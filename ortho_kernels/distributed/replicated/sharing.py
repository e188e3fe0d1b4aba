"""Which processes share out the penalties of replicated weights (DDP), and whether they can."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ...backends.registry import serving
from ...options import SO, SRIP
from ...weight_checks import PLAIN, is_sharded
from ...weight_views import WeightViews
from ..agreement import check_agreement, description_of
from .owned import Owned
from .penalties import ReplicatedPenalties


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
        self._known: tuple[tuple, ReplicatedPenalties] | None = None  # the last one, and what it was made for

    def penalties(
        self, names: tuple[str, ...], weights: list[Tensor], views: WeightViews, options: SO | SRIP
    ) -> ReplicatedPenalties:
        """SO and SRIP of these weights. A collective, in the first call another one, which compares the ranks.

        Raises:
            ValueError: where the ranks have different weights.
            RuntimeError: where the call is traced or transformed.
        """
        if torch.compiler.is_compiling():
            _refuse_tracing()
        if torch._C._are_functorch_transforms_active():
            raise RuntimeError(
                "torch.func can't transform what ranks share out: call penalty.eval(), with which each rank computes all"
            )
        local = serving(views, options)  # of all weights, so the result is the same whatever the part
        made_for = (names, views, local, [weight.requires_grad for weight in weights])
        if self._known is not None and self._known[0] == made_for:
            return self._known[1]
        self._agree(names, weights, views, options)
        penalties = ReplicatedPenalties(local, Owned(weights, views, options, self.rank, self.ranks), self.group)
        self._known = made_for, penalties
        return penalties

    @staticmethod
    def refuse_sharded(names: Sequence[str], weights: Sequence[Tensor]) -> None:
        """Raises `ValueError`, naming the weight, where processes hold parts of it already."""
        if PLAIN.issuperset(map(type, weights)):
            return
        for name, weight in zip(names, weights, strict=True):
            if is_sharded(weight):
                raise ValueError(f"{name} is a DTensor: sharded weights are shared out by themselves; leave share out")

    def _agree(self, names: tuple[str, ...], weights: list[Tensor], views: WeightViews, options: SO | SRIP) -> None:
        """Once for each list of weights, in the same call on all ranks. What a rank keeps of views may differ."""
        description = description_of(names, weights, views, options)
        if description not in self._agreed:
            check_agreement(description, self.group)
            self._agreed.add(description)

    def __str__(self) -> str:
        return f"{self.ranks} ranks"

    def __deepcopy__(self, _: Any) -> Sharing:
        """A group has no copies."""
        return Sharing(self.group)


def sharing_of(share: Any) -> Sharing | None:
    """That of a group, or of all ranks for True: a process that was started alone has none then. None for False.

    Raises:
        TypeError, ValueError, RuntimeError: as `Sharing`.
    """
    alone = not _is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) == 1
    if share is False or (share is True and alone):
        return None
    return Sharing(dist.group.WORLD if share is True else share)


def _is_initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


def _check_group(group: Any) -> None:
    if not _is_initialized():
        raise RuntimeError(
            "share takes a process group, and none is initialized: call torch.distributed.init_process_group first"
        )
    if group == dist.GroupMember.NON_GROUP_MEMBER or (
        isinstance(group, dist.ProcessGroup) and dist.get_rank(group) < 0
    ):
        raise ValueError("share is a process group of which this process is no member: make the penalty on its members")
    if not isinstance(group, dist.ProcessGroup):
        raise TypeError(
            "share must be True or a torch.distributed.ProcessGroup, such as torch.distributed.group.WORLD or "
            f"mesh.get_group(name); got {group!r:.60}"
        )


def _refuse_tracing() -> bool:
    raise RuntimeError(
        "a compiled call can't be shared out: outside of the compiled function, call penalty.accumulate_gradients() after "
        "the backward, or add penalty() to what the function returns"
    )


# As torch.compiler.assume_constant_result does: it runs, and so raises, while the call is traced.
_refuse_tracing._dynamo_marked_constant = True  # type: ignore[attr-defined]
