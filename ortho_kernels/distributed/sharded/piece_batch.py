"""The pieces that a rank holds, times vectors: those of one shape together, as each launch takes its time on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .double_product import block_entries, double_product
from .local_weights import LocalWeights
from .pieces import Matrix, Piece


class OwnPiece(NamedTuple):
    """The piece of a matrix that this rank holds.

    Attributes:
        place: of the matrix, among all.
        order, depth: the piece's own slices of packed vectors, one a matrix, as long as the orders or the depths.
    """

    place: int
    matrix: Matrix
    piece: Piece
    order: slice
    depth: slice

    @property
    def shape(self) -> tuple[int, int]:
        """Of the piece, with the order first."""
        return self.order.stop - self.order.start, self.depth.stop - self.depth.start

    def of(self, tensors: Sequence[Any]) -> Tensor:
        """The piece of a weight or of its gradient, with the order first."""
        W = self.piece.of(tensors[self.matrix.weight])
        return W if self.matrix.by_rows else W.T


class PieceBatch:
    """Pieces of one shape. Vectors are packed, float64, and a batch reads and writes its pieces' slices of them."""

    def __init__(self, pieces: Sequence[OwnPiece], device: torch.device) -> None:
        self._pieces = pieces
        self._orders, self._depths = (
            torch.stack([torch.arange(part.start, part.stop) for part in parts]).to(device)
            for parts in ([own.order for own in pieces], [own.depth for own in pieces])
        )
        self._places = torch.tensor([own.place for own in pieces]).to(device)

    def multiply(self, weights: Sequence[Any], by_depth: Tensor, by_order: Tensor) -> None:
        """W times each vector of `by_depth`, written to `by_order`."""
        by_order[self._orders] = self._product([own.of(weights) for own in self._pieces], by_depth[self._depths])

    def multiply_transposed(self, weights: Sequence[Any], by_order: Tensor, by_depth: Tensor) -> None:
        """W^T times each vector of `by_order`, written to `by_depth`."""
        by_depth[self._depths] = self._product([own.of(weights).T for own in self._pieces], by_order[self._orders])

    def write_gradients(
        self, lefts: Sequence[Tensor], rights: Sequence[Tensor], factors: Tensor, held: LocalWeights, dtype: torch.dtype
    ) -> None:
        """`factor` times the sum of `left right^T` over pairs of packed vectors, computed in this dtype."""
        left = torch.stack([vector[self._orders] for vector in lefts], -1)
        right = torch.stack([vector[self._depths] for vector in rights], -2)
        gradients = ((factors[self._places][:, None, None] * left).to(dtype) @ right.to(dtype)).unbind()
        wanted = [held.targets[own.matrix.weight] is not None for own in self._pieces]
        targets = [own.of(held.targets) for own in compress(self._pieces, wanted)]
        if targets:
            write = torch._foreach_add_ if held.accumulate else torch._foreach_copy_
            write(targets, list(compress(gradients, wanted)))

    @staticmethod
    def _product(matrices: list[Tensor], vectors: Tensor) -> Tensor:
        if len(matrices) == 1:
            return double_product(matrices[0], vectors[0])[None]
        return (torch.stack(matrices).double() @ vectors[:, :, None])[:, :, 0]


def in_batches(pieces: Sequence[OwnPiece], device: torch.device) -> list[PieceBatch]:
    """Those of one shape, as many as fit a block."""
    alike: dict[tuple[int, int], list[OwnPiece]] = {}
    for own in pieces:
        alike.setdefault(own.shape, []).append(own)
    batches = []
    for (order, depth), of_shape in alike.items():
        size = max(1, block_entries(device) // (order * depth))
        batches += [PieceBatch(of_shape[first : first + size], device) for first in range(0, len(of_shape), size)]
    return batches
