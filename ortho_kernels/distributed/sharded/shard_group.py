"""The weights of a list that one group of ranks shards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ...backends.protocol import Backend
from ...options import SO, SRIP
from ...weight_views import WeightViews
from ..packed_indices import making_constants, packed_indices
from .local_weights import LocalWeights
from .partition import Partition
from .pieces import Matrix, matrices_of
from .soft_orthogonality import ShardedSoftOrthogonality
from .srip import ShardedSRIP
from .whole_matrices import WholeMatrices


class ShardGroup:
    """What is planned for these weights, once for all calls.

    Args:
        weights: their places in the list.

    Attributes:
        indices: the places of their matrices among all.
        entries: the places of their start vectors' entries among all, of SRIP.
    """

    def __init__(self, local: Backend, views: WeightViews, options: SO | SRIP, weights: Sequence[int]) -> None:
        self._local, self._views, self._weights = local, views, weights
        self.indices = matrix_indices(weights, views)
        self._itemsize = views.gradient_forms[weights[0]][1].itemsize
        self._soft_orthogonality: dict[bool, ShardedSoftOrthogonality] = {}
        self._srip: list[tuple[Tensor, Tensor, Any]] | None = None
        self.entries = entry_indices(weights, views, options.side) if isinstance(options, SRIP) else self.indices[:0]

    def soft_orthogonality(self, held: LocalWeights, options: SO, factors: Tensor) -> Tensor:
        """One value a matrix, and the gradients: a collective."""
        group, with_gradient = held.all[self._weights[0]].group, held.wants_gradients
        if with_gradient not in self._soft_orthogonality:
            with making_constants():
                self._soft_orthogonality[with_gradient] = self._partitioned(options, with_gradient, group)
        computed = self._soft_orthogonality[with_gradient]
        return computed.compute(held, factors, group)

    def srip(
        self, held: LocalWeights, options: SRIP, start: Tensor, factors: Tensor, follow: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Likewise, and the normalized vectors of the end if `follow`."""
        group = held.all[self._weights[0]].group
        if self._srip is None:
            with making_constants():
                self._srip = self._split(options, group)
        values, last = torch.zeros_like(factors), torch.zeros_like(start)
        for places, entries, computed in self._srip:
            found, end = computed.compute(held, start[entries], factors[places], follow, group)
            values[places] = found.to(values.dtype)
            if end is not None:
                last[entries] = end.to(last.dtype)
        return values, last if follow else None

    def _split(self, options: SRIP, group: dist.ProcessGroup) -> list[tuple[Tensor, Tensor, Any]]:
        """The matrices that one rank holds in full, and the others: their places, those of their vectors, what computes."""
        matrices, rank, device = self._matrices(options.side), dist.get_rank(group), self._views.device
        found: list[tuple[Tensor, Tensor, Any]] = []
        for is_whole in (True, False):
            chosen = [place for place, matrix in enumerate(matrices) if matrix.is_whole == is_whole]
            if not chosen:
                continue
            own, orders = [matrices[place] for place in chosen], [matrix.order for matrix in matrices]
            computed = (
                WholeMatrices(own, self._local, options, rank, device)
                if is_whole
                else ShardedSRIP(own, options, rank, self._views.dtype, device)
            )
            ones = [1] * len(matrices)
            found.append((packed_indices(chosen, ones, device), packed_indices(chosen, orders, device), computed))
        return found

    def _partitioned(self, options: SO, with_gradient: bool, group: dist.ProcessGroup) -> ShardedSoftOrthogonality:
        views = self._views
        side, excess = options.side, [0.0] * views.matrix_count
        if options.same_on_all_sides:
            other = "large" if side == "both" else side
            sides = zip(views.orders(other), views.orders("small"), strict=True)
            side, excess = "small", [float(options.diagonal) * (n - small) for n, small in sides]
        can_cut = options.norm == "fro" and options.normalize is None
        partition = Partition(self._matrices(side), self._itemsize, dist.get_world_size(group), can_cut, with_gradient)
        own_excess = [excess[index] for index in self.indices.tolist()]
        rank, dtype, device = dist.get_rank(group), views.dtype, views.device
        return ShardedSoftOrthogonality(partition, self._local, options, own_excess, rank, dtype, device)

    def _matrices(self, side: str) -> list[Matrix]:
        views, found = self._views, []
        for index in self._weights:
            by_rows = views.views[index].resolve(side) == "rows"
            found += matrices_of(index, views.layouts[index], views.groups[index], by_rows)
        return found


def matrix_indices(weights: Sequence[int], views: WeightViews) -> Tensor:
    """The places of these weights' matrices among all, on the weights' device."""
    return packed_indices(weights, views.groups, views.device)


def entry_indices(weights: Sequence[int], views: WeightViews, side: str) -> Tensor:
    """The places of the entries of these weights' vectors among all."""
    return packed_indices(weights, views.vector_sizes(side), views.device)
