"""SRIP of sharded weights: vectors travel, weights stay.

Each rank multiplies with its piece of a matrix, and one all-reduce for all matrices adds up what the pieces give. A piece
with all of the order gives a summand of W (W^T x), as long as the order. One with a part of the order gives a summand of
W^T x, as long as the depth; W times the sum is then the rank's own part of the product. Where pieces have a part of both, a
second all-reduce follows.

The products W^T x are kept: with them the gradient, `sum (lambda x^T + x lambda^T) W` over the pairs of `reference.py`'s
iteration, is one product of thin matrices, which does not read W.

Vectors are float64, as `R x` near orthogonality is a difference of nearly equal numbers. What is summed over the ranks has
the dtype of the values: float32 leaves an error of 6e-6 in the gradient of an orthogonal matrix with noise of 1e-3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from ...options import SRIP
from ..exact_sum import exact_sum
from .local_weights import LocalWeights
from .piece_batch import OwnPiece, in_batches
from .pieces import Matrix


class _Applied(NamedTuple):
    """R applied to a vector x of each matrix. Vectors are packed, and a rank's own slices of them hold.

    Attributes:
        norms: |x|, one a matrix.
        x: normalized.
        transposed: W^T x, of x normalized.
        onward: R x, of x normalized.
    """

    norms: Tensor
    x: Tensor
    transposed: Tensor
    onward: Tensor


_Pair = tuple[Tensor, Tensor, Tensor, Tensor]


class ShardedSRIP:
    """The values of matrices that one group shards, and the gradients of what each rank holds.

    Args:
        rank: of this process, in the group.
        dtype, device: of what is summed over the ranks.
    """

    def __init__(
        self, matrices: Sequence[Matrix], options: SRIP, rank: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._options, self._dtype, self._device = options, dtype, device
        self._orders = [matrix.order for matrix in matrices]
        self._depths = [matrix.depth for matrix in matrices]
        own: list[OwnPiece] = []
        counted = torch.zeros(sum(self._orders), dtype=torch.bool)
        places: dict[str, list[Tensor]] = {"order": [], "depth": [], "both": []}
        order = depth = 0
        for index, matrix in enumerate(matrices):
            orders = torch.arange(order, order + matrix.order)
            depths = torch.arange(depth, depth + matrix.depth)
            if matrix.is_cut_along_depth:
                places["order"].append(orders)
            else:
                places["depth"].append(depths)
                if any(matrix.depth_of(piece) != (0, matrix.depth) for piece in matrix.pieces):
                    places["both"].append(orders)
            piece = matrix.piece_of(rank)
            if piece is not None:
                slices = [
                    slice(begin + first, begin + last)
                    for begin, (first, last) in ((order, matrix.order_of(piece)), (depth, matrix.depth_of(piece)))
                ]
                own.append(OwnPiece(index, matrix, piece, *slices))
                counted[slices[0]] = matrix.order_of(piece) not in [
                    matrix.order_of(other) for other in matrix.pieces if other.rank < rank
                ]
            order, depth = order + matrix.order, depth + matrix.depth
        # The pieces with all of the order, and those with a part of it.
        self._whole_orders = in_batches([each for each in own if each.matrix.is_cut_along_depth], device)
        self._part_orders = in_batches([each for each in own if not each.matrix.is_cut_along_depth], device)
        # What is added up over the ranks: of x and W^T x at once, and of x where its matrix is cut both ways.
        self._added_orders = torch.cat([*places["order"], _NONE]).to(device)
        self._added_depths = torch.cat([*places["depth"], _NONE]).to(device)
        self._added_afterwards = torch.cat(places["both"]).to(device) if places["both"] else None
        self._counted = counted.to(device)  # the entries of x of which this rank adds the squares
        self._lengths = torch.tensor(self._orders).to(device)
        of_matrix = torch.arange(len(matrices))
        self._of_orders = of_matrix.repeat_interleave(torch.tensor(self._orders)).to(device)
        self._of_depths = of_matrix.repeat_interleave(torch.tensor(self._depths)).to(device)

    def compute(
        self, held: LocalWeights, start: Tensor, factors: Tensor, follow: bool, group: Any
    ) -> tuple[Tensor, Tensor | None]:
        """The values of all matrices, the gradients, and the normalized vectors of the end if `follow`: a collective.

        Args:
            start: the vectors of all matrices, packed.
            factors: of the gradient of each matrix.
        """
        with torch.autocast(self._device.type, enabled=False):
            return self._compute(held, start, factors, follow, group)

    def _compute(
        self, held: LocalWeights, start: Tensor, factors: Tensor, follow: bool, group: Any
    ) -> tuple[Tensor, Tensor | None]:
        options = self._options
        weights = held.weights
        steps = [self._apply(weights, start.double(), group)]
        for _ in range(1, options.iterations):
            steps.append(self._apply(weights, steps[-1].onward, group))
        last = steps[-1].onward
        if not held.wants_gradients:
            sigma = self._norms(last, group)
            end = last / _nonzero(sigma)[self._of_orders]
        else:
            steps.append(self._apply(weights, last, group, onward=options.pairs > 1))
            sigma, end = steps[-1].norms, steps[-1].x
            pairs = self._pairs(weights, steps, group)
            self._write_gradients(pairs, 2 * sigma * factors if options.squared else factors, held)
        values = sigma.square() if options.squared else sigma
        if not follow:
            return values, None
        return values, exact_sum([torch.where(self._counted, end, 0).to(start.dtype)], group)[0]

    def _pairs(self, weights: Sequence[Any], steps: list[_Applied], group: Any) -> list[_Pair]:
        """Each lambda with its x, and W^T of both, as in the gradient's sum, from the last to the first."""
        adjoint = steps[-1]
        pairs = [(adjoint.x, adjoint.transposed, steps[-2].x, steps[-2].transposed)]
        onward = adjoint.onward - (adjoint.norms[self._of_orders] * steps[-2].x if self._options.pairs > 1 else 0)
        for count in range(1, self._options.pairs):
            step = steps[-1 - count]
            x = onward / _nonzero(step.norms)[self._of_orders]
            adjoint = self._apply(weights, x, group, onward=count + 1 < self._options.pairs)
            transposed = adjoint.transposed * adjoint.norms[self._of_depths]
            before = steps[-2 - count]
            pairs.append((x, transposed, before.x, before.transposed))
            onward = adjoint.onward * adjoint.norms[self._of_orders]
        return pairs

    def _write_gradients(self, pairs: list[_Pair], factors: Tensor, held: LocalWeights) -> None:
        lefts = [vector for adjoint, _, x, _ in pairs for vector in (adjoint, x)]
        rights = [vector for _, of_adjoint, _, of_x in pairs for vector in (of_x, of_adjoint)]
        for batch in (*self._whole_orders, *self._part_orders):
            batch.write_gradients(lefts, rights, factors, held, self._dtype)

    def _apply(self, weights: Sequence[Any], x: Tensor, group: Any, onward: bool = True) -> _Applied:
        """A pass over the weights, and one all-reduce. Without `onward` W^T x alone is computed."""
        transposed = x.new_zeros(sum(self._depths))
        product = torch.zeros_like(x)
        for batch in (*self._whole_orders, *self._part_orders):
            batch.multiply_transposed(weights, x, transposed)
        for batch in self._whole_orders if onward else ():
            batch.multiply(weights, transposed, product)
        orders = self._added_orders if onward else self._added_orders[:0]
        squares = self._squares(x)
        sizes = [len(self._added_depths), len(orders), len(squares)]
        added = self._summed(torch.cat([transposed[self._added_depths], product[orders], squares]), group)
        transposed[self._added_depths], product[orders], squares = added.split(sizes)
        if onward:
            for batch in self._part_orders:
                batch.multiply(weights, transposed, product)
            if self._added_afterwards is not None:
                product[self._added_afterwards] = self._summed(product[self._added_afterwards], group)
        norms = squares.sqrt()
        scale = 1 / _nonzero(norms)
        of_orders = scale[self._of_orders]
        return _Applied(norms, x * of_orders, transposed * scale[self._of_depths], (product - x) * of_orders)

    def _norms(self, x: Tensor, group: Any) -> Tensor:
        return self._summed(self._squares(x), group).sqrt()

    def _summed(self, vector: Tensor, group: Any) -> Tensor:
        """Over the ranks: a collective."""
        sent = vector.to(self._dtype)
        dist.all_reduce(sent, group=group)
        return sent.double()

    def _squares(self, x: Tensor) -> Tensor:
        """This rank's part of |x|^2, one a matrix."""
        squares = torch.where(self._counted, x, 0).square()
        return torch.segment_reduce(squares, "sum", lengths=self._lengths, unsafe=True)


_NONE = torch.zeros(0, dtype=torch.int64, device="cpu")


def _nonzero(norms: Tensor) -> Tensor:
    """1 in the place of 0: a zero vector stays one, and R = 0 has sigma 0 with zero gradient."""
    return torch.where(norms == 0, 1, norms)
