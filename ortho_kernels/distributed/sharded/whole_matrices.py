"""SRIP of matrices that one rank each holds in full, such as experts that are sharded by their number: nothing moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...backends.protocol import Into, Penalties
from ...options import SRIP
from ...weight_views import weight_views
from ..exact_sum import exact_sum
from ..packed_indices import packed_indices
from .local_weights import LocalWeights
from .pieces import Matrix


class WholeMatrices:
    """The values of these matrices on all ranks, and the gradients of those that are here.

    Args:
        local: the backend that computes them.
        rank: of this process, in the group.
        device: of the weights.
    """

    def __init__(
        self, matrices: Sequence[Matrix], local: Penalties, options: SRIP, rank: int, device: torch.device
    ) -> None:
        self._local, self._options = local, options
        places = [place for place, matrix in enumerate(matrices) if matrix.pieces[0].rank == rank]
        self._own = [(matrices[place].weight, matrices[place].pieces[0]) for place in places]
        self._places = packed_indices(places, [1] * len(matrices), device)
        self._entries = packed_indices(places, [matrix.order for matrix in matrices], device)

    def compute(
        self, held: LocalWeights, start: Tensor, factors: Tensor, follow: bool, group: Any
    ) -> tuple[Tensor, Tensor | None]:
        """One value a matrix, and the normalized vectors of the end if `follow`: a collective."""
        values, ends = torch.zeros_like(factors), torch.zeros_like(start)
        if self._own:
            own = [piece.of(held.weights[weight]) for weight, piece in self._own]
            targets = [(held.targets[weight], piece) for weight, piece in self._own]
            chosen = [None if target is None else piece.of(target) for target, piece in targets]
            into = Into(chosen, factors[self._places], held.accumulate)
            vectors = start[self._entries]
            found, end = self._local.srip_gradients(own, weight_views(own, 1), self._options, vectors, into, follow)
            values[self._places] = found.to(values.dtype)
            if end is not None:
                ends[self._entries] = end.to(ends.dtype)
        if not follow:
            return exact_sum([values], group)[0], None
        values, ends = exact_sum([values, ends], group)
        return values, ends
