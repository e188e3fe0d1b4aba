"""The weights of a list that one group of ranks shards."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.distributed as dist
from torch import Tensor

from ...distributed.pieces import Matrix, matrices_of
from ...distributed.plan import Plan
from ...options import SO, SRIP
from ...weight_views import WeightViews
from ..protocol import Backend
from .held import Held
from .soft_orthogonality import ShardedSoftOrthogonality
from .srip import ShardedSRIP


class Fleet:
    """What is planned for these weights, once for all calls.

    Args:
        weights: their places in the list.

    Attributes:
        indices: the places of their matrices among all.
        entries: the places of their start vectors' entries among all, of SRIP.
    """

    def __init__(self, local: Backend, views: WeightViews, options: SO | SRIP, weights: Sequence[int]) -> None:
        self._local, self._views, self._options, self._weights = local, views, options, weights
        self.indices = matrix_indices(weights, views)
        self._sizes = [views.gradient_forms[index][1].itemsize for index in weights for _ in range(views.groups[index])]
        self._soft_orthogonality: dict[bool, ShardedSoftOrthogonality] = {}
        self._srip: ShardedSRIP | None = None
        if isinstance(options, SRIP):
            self.entries = entry_indices(weights, views, options.side)

    def soft_orthogonality(self, held: Held, factors: Tensor) -> Tensor:
        """One value a matrix, and the gradients: a collective."""
        group, with_gradient = held.all[self._weights[0]].group, held.wants_gradients
        if with_gradient not in self._soft_orthogonality:
            self._soft_orthogonality[with_gradient] = self._plan(with_gradient, group)
        computed = self._soft_orthogonality[with_gradient]
        return computed.compute(held.weights, factors, held.targets, held.accumulate, group)

    def srip(self, held: Held, start: Tensor, factors: Tensor, follow: bool) -> tuple[Tensor, Tensor | None]:
        """Likewise, and the normalized vectors of the end if `follow`."""
        group, options = held.all[self._weights[0]].group, self._options
        if self._srip is None:
            matrices = self._matrices(options.side)
            self._srip = ShardedSRIP(matrices, options, dist.get_rank(group), self._views.dtype, self._views.device)
        wanted = factors if held.wants_gradients else None
        return self._srip.compute(held.weights, start, wanted, held.targets, held.accumulate, follow, group)

    def _plan(self, with_gradient: bool, group: dist.ProcessGroup) -> ShardedSoftOrthogonality:
        views, options = self._views, self._options
        side, excess = options.side, [0.0] * views.matrix_count
        if options.diagonal == options.off_diagonal:  # all sides have one gradient, and values apart by a constant
            other = "large" if side == "both" else side
            sides = zip(views.orders(other), views.orders("small"), strict=True)
            side, excess = "small", [float(options.diagonal) * (n - small) for n, small in sides]
        can_cut = options.norm == "fro" and options.normalize is None
        plan = Plan(self._matrices(side), self._sizes, dist.get_world_size(group), can_cut, with_gradient)
        own_excess = [excess[index] for index in self.indices.tolist()]
        rank, dtype, device = dist.get_rank(group), views.dtype, views.device
        return ShardedSoftOrthogonality(plan, self._local, options, own_excess, rank, dtype, device)

    def _matrices(self, side: str) -> list[Matrix]:
        return [
            matrix
            for index in self._weights
            for matrix in matrices_of(
                index,
                self._views.layouts[index],
                self._views.groups[index],
                self._views.views[index].resolve(side) == "rows",
            )
        ]


def matrix_indices(weights: Sequence[int], views: WeightViews) -> Tensor:
    """The places of these weights' matrices among all, on the weights' device."""
    return _ranges(weights, views.groups, views.device)


def entry_indices(weights: Sequence[int], views: WeightViews, side: str) -> Tensor:
    """The places of the entries of these weights' vectors among all."""
    return _ranges(weights, views.vector_sizes(side), views.device)


def _ranges(chosen: Sequence[int], sizes: Sequence[int], device: torch.device) -> Tensor:
    ends = list(accumulate(sizes))
    places = [torch.arange(ends[index] - sizes[index], ends[index]) for index in chosen]
    return torch.cat(places).to(device) if places else torch.zeros(0, dtype=torch.int64, device=device)
