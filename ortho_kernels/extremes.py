"""The operators of the extreme eigenvalues of W W^T on a CPU, made of passes over W and SRIP's backward operator.

`reference.extreme_eigenvalues` has the formulas: from two vectors x and x', the Rayleigh quotients l of y = G x and l' of
z = (G - l I) x'. With q = 2 (G y - l y) / |y|^2 and q' = 2 (G z - l' z) / |z|^2 their exact derivatives are

    dl  = q^T dG x + y^T dG y / |y|^2
    dl' = q'^T dG x' - (q'^T x') dl + z^T dG z / |z|^2

so the gradient is a sum of terms (p v^T + v p^T) W, as SRIP's is. Of z = 0, l' is l.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import ops
from .fakes import orders
from .weight_views import ROWS


def _extreme_eigenvalues(weights: list[Tensor], groups: list[int], start: Tensor, keep: bool) -> tuple[Tensor, Tensor]:
    matrices = _Packed(orders(weights, groups, [ROWS] * len(groups)))

    def quotient(vector: Tensor, of_zero: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The Rayleigh quotient of a vector; its q, and the vector over the square of its length, and the vector."""
        length = matrices.length(vector)
        # Of length 1: its scale changes no quotient, and may not fit the dtype.
        y = (vector / matrices.spread(length)).to(start.dtype)
        Gy, square = ops.gram_times_vectors(weights, groups, y), matrices.length(y) ** 2
        value = torch.where(matrices.is_zero(y), of_zero, matrices.dot(y, Gy) / square)
        q = 2 * (Gy - matrices.spread(value) * y) / matrices.spread(square * length)
        return value, [q, y / matrices.spread(square), y]

    x, x2 = (vector.contiguous() for vector in start.unbind(-1))
    y = ops.gram_times_vectors(weights, groups, x)
    largest, (q, p, y) = quotient(y, torch.zeros(sum(groups), dtype=torch.float64, device=y.device))
    z = ops.gram_times_vectors(weights, groups, x2) - matrices.spread(largest) * x2
    smallest, (q2, p2, z) = quotient(z, largest)
    kept = [vector.to(start.dtype) for vector in (q, x, p, y, q2, x2, p2, z)] if keep else [start.new_empty(0)]
    return torch.stack([largest, smallest]), torch.stack(kept)


def _extreme_eigenvalues_backward(
    factors: Tensor,
    weights: list[Tensor],
    groups: list[int],
    vectors: Tensor,
    gradients: list[Tensor],
    wanted: list[int],
    accumulate: bool,
) -> None:
    sides = [ROWS] * len(groups)
    matrices = _Packed(orders(weights, groups, sides))
    of_largest, of_smallest = factors.double()
    q2, x2, _, z = vectors[4:]
    no_z = matrices.is_zero(z)
    of_largest = of_largest + torch.where(no_z, of_smallest, -of_smallest * matrices.dot(q2, x2))
    of_smallest = torch.where(no_z, 0, of_smallest)
    scales = [matrices.spread(factor) for factor in (of_largest, of_smallest)]
    pairs = vectors.clone()
    for pair in range(4):
        pairs[2 * pair] = vectors[2 * pair] * scales[pair // 2]
    packed = torch.cat([own.reshape(-1) for own in pairs.split(matrices.orders, dim=1)])
    one = vectors.new_ones(len(matrices.orders))
    ops.srip_backward(one, weights, groups, sides, packed, 4, gradients, wanted, accumulate)


class _Packed:
    """Vectors of matrices of these orders, one after the other; numbers of them in float64."""

    def __init__(self, orders: list[int]) -> None:
        self.orders = orders

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """One number a matrix."""
        products = a.double() * b
        if len(set(self.orders)) == 1:
            return products.view(len(self.orders), -1).sum(1)
        return torch.stack([own.sum() for own in products.split(self.orders)])

    def is_zero(self, vector: Tensor) -> Tensor:
        return self.dot(vector, vector) == 0

    def length(self, vector: Tensor) -> Tensor:
        """1 of a zero vector."""
        square = self.dot(vector, vector)
        return torch.where(square == 0, 1, square).sqrt()

    def spread(self, values: Tensor) -> Tensor:
        """The number of its matrix for each entry."""
        return values.repeat_interleave(torch.tensor(self.orders, device=values.device), output_size=sum(self.orders))


ops.library.impl("extreme_eigenvalues", _extreme_eigenvalues, "CPU")
ops.library.impl("extreme_eigenvalues_backward", _extreme_eigenvalues_backward, "CPU")
