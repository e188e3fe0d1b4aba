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
from .local_weights import LocalWeights
from .pieces import Matrix, Piece


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
        self._own: list[tuple[Matrix, Piece]] = []
        places: list[int] = []
        entries, first = [torch.zeros(0, dtype=torch.int64)], 0
        for place, matrix in enumerate(matrices):
            if matrix.pieces[0].rank == rank:
                self._own.append((matrix, matrix.pieces[0]))
                places.append(place)
                entries.append(torch.arange(first, first + matrix.order))
            first += matrix.order
        self._places, self._entries = torch.tensor(places, dtype=torch.int64).to(device), torch.cat(entries).to(device)

    def compute(
        self, held: LocalWeights, start: Tensor, factors: Tensor, follow: bool, group: Any
    ) -> tuple[Tensor, Tensor | None]:
        """One value a matrix, and the normalized vectors of the end if `follow`: a collective."""
        values, ends = torch.zeros_like(factors), torch.zeros_like(start)
        if self._own:
            own = [_of(held.weights[matrix.weight], piece) for matrix, piece in self._own]
            targets = [held.targets[matrix.weight] for matrix, _ in self._own]
            chosen = [None if t is None else _of(t, piece) for t, (_, piece) in zip(targets, self._own, strict=True)]
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


def _of(tensor: Tensor, piece: Piece) -> Tensor:
    return tensor[piece.batch, piece.first_row : piece.first_row + piece.rows[1]]
