"""Soft orthogonality of sharded weights, round by round: parts of matrices go to their owners, gradients come back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...backends.protocol import Backend, Into
from ...options import SO
from ...reference import square_root
from ...weight_views import COLS, ROWS, weight_views
from ..exact_sum import exact_sum
from .exchange import Exchange
from .local_weights import LocalWeights
from .partition import Part, Partition
from .summed_grams import SummedGrams


class ShardedSoftOrthogonality:
    """The values of a partition's matrices, and the gradients of what this rank holds.

    Args:
        local: the backend that computes what is here.
        excess: by how much the value of each matrix is above that of the side from which it is computed.
        rank: of this process, in the group.
        dtype, device: of the values.
    """

    def __init__(
        self,
        partition: Partition,
        local: Backend,
        options: SO,
        excess: Sequence[float],
        rank: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.partition, self.local, self.options = partition, local, options
        self.rank, self.dtype, self.device = rank, dtype, device
        self._rounds = [_Round(self, parts, excess) for parts in partition.rounds]

    def compute(self, held: LocalWeights, factors: Tensor, group: Any) -> Tensor:
        """The values of all matrices, and `factors` times the gradient of each: a collective."""
        own, common = (
            torch.zeros(len(self.partition.matrices), dtype=self.dtype, device=self.device) for _ in range(2)
        )
        for each in self._rounds:
            each.compute(held, factors, group, own, common)
        return exact_sum([own], group)[0] + common


class _Round:
    """What is exchanged and computed at once."""

    def __init__(self, whole: ShardedSoftOrthogonality, parts: Sequence[Part], excess: Sequence[float]) -> None:
        partition, dtype, device = whole.partition, whole.dtype, whole.device
        self._partition, self._local, self._options = partition, whole.local, whole.options
        self._exchange = Exchange(partition, parts, whole.rank)
        self._weight = partition.matrices[parts[0].matrix].weight  # one of the round's dtype
        owned = self._exchange.owned
        self._complete = [place for place, part in enumerate(owned) if partition.is_complete(part)]
        self._cut = [place for place, part in enumerate(owned) if not partition.is_complete(part)]
        self._complete_indices = _indices([owned[place].matrix for place in self._complete], device)
        self._sides = [ROWS if partition.matrices[owned[place].matrix].by_rows else COLS for place in self._cut]
        summed = sorted({part.matrix for part in parts if not partition.is_complete(part)})
        self._grams: SummedGrams | None = None
        if summed:
            own = [summed.index(owned[place].matrix) for place in self._cut]
            self._own_indices = _indices(own, device)
            self._grams = SummedGrams([partition.matrices[index].order for index in summed], own, dtype, device)
            self._summed_indices = _indices(summed, device)
            self._excess = torch.tensor([excess[index] for index in summed], dtype=dtype, device=device)

    def compute(self, held: LocalWeights, factors: Tensor, group: Any, own: Tensor, common: Tensor) -> None:
        """Writes values to `own` where this rank alone has them, and to `common` where all have them."""
        dtype, device = held.weights[self._weight].dtype, factors.device
        parts = self._exchange.gather(held.weights, dtype, device, group)
        gradients = self._exchange.targets(parts, held) if self._partition.with_gradient else []
        if self._complete:
            into = None
            if gradients:
                chosen = [gradients[place] for place in self._complete]
                into = Into(chosen, factors[self._complete_indices], held.accumulate)
            values = self._values([parts[place] for place in self._complete], into)
            own[self._complete_indices] = values.to(own.dtype)
        if self._grams is not None:
            common[self._summed_indices] = self._values_of_cut(self._grams, parts, gradients, factors, held, group)
        del parts  # their memory is that of the buffers in which the gradients travel
        if self._partition.with_gradient:
            self._exchange.scatter(gradients, held, dtype, device, group)

    def _values(self, matrices: list[Tensor], into: Into | None) -> Tensor:
        views = weight_views(matrices, 1)
        if into is None:
            return self._local.soft_orthogonality(matrices, views, self._options)
        return self._local.soft_orthogonality_gradients(matrices, views, self._options, into)

    def _values_of_cut(
        self,
        grams: SummedGrams,
        parts: Sequence[Tensor],
        gradients: Sequence[Tensor],
        factors: Tensor,
        held: LocalWeights,
        group: Any,
    ) -> Tensor:
        own = [parts[place] for place in self._cut]
        views = weight_views(own, 1) if own else None
        R = grams.residuals(self._local.residuals(own, views, self._sides) if views is not None else None, group)
        options, times = self._options, 2 if self._options.side == "both" else 1
        values = times * grams.squares(R, options.diagonal, options.off_diagonal) + self._excess
        factors = times * factors[self._summed_indices]
        if not options.squared:
            values = square_root(values)
            factors = torch.where(values == 0, 0, factors / (2 * values))
        if gradients and views is not None:
            K = grams.own_weighted(R, options.diagonal, options.off_diagonal).to(views.dtype)
            into = Into([gradients[place] for place in self._cut], factors[self._own_indices], held.accumulate)
            self._local.multiply_residuals(own, views, self._sides, K, into)
        return values


def _indices(places: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor(places, dtype=torch.int64, device=device)
