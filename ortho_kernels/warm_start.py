"""SRIP's vectors, kept from step to step: with them the power iteration converges over a training run at no cost."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from . import functional, ops, reference
from .matrix_view import MatrixView


class WarmStart(nn.Module):
    """The vector x_m of every matrix after the last step, packed; a buffer, so it survives checkpoints and moves."""

    vectors: Tensor

    def __init__(self, weights: Sequence[Tensor], views: Sequence[MatrixView], side: str) -> None:
        super().__init__()
        self.register_buffer("vectors", functional.draw_start(weights, views, side))

    def sigma(
        self, weights: Sequence[Tensor], views: Sequence[MatrixView], side: str, iterations: int, gradient: str
    ) -> Tensor:
        """sigma of every matrix from the kept vectors, which move on if the module is in training mode."""
        # The model may have been moved or cast since, and its penalty with it or not.
        start = self.vectors.to(weights[0].device, ops.compute_dtype(weights), copy=True)
        sigma, kept = functional.power_iteration(weights, views, side, start, iterations, gradient, keep=True)
        if self.training:
            with torch.no_grad():
                orders = [view.order(side) for view in views for _ in range(view.groups)]
                if kept.numel():
                    pairs = iterations if gradient == "through" else 1
                    # Of the pairs kept for a matrix the first begins with the multiple of x_m.
                    parts = kept.split([size for n in orders for size in (n, (2 * pairs - 1) * n)])[::2]
                else:
                    Ws = reference.matrices(weights, [view.groups for view in views])
                    parts = [
                        reference.iterate(W, x, side, iterations) for W, x in zip(Ws, start.split(orders), strict=True)
                    ]
                self.vectors.copy_(_where_nonzero(parts, start.split(orders)))
        return sigma


def _where_nonzero(vectors: Sequence[Tensor], otherwise: Sequence[Tensor]) -> Tensor:
    """A zero vector (of R = 0) would stay zero for ever, whatever W becomes: the one before it is kept instead."""
    moved = [torch.where(x.any(), x, x0) for x, x0 in zip(vectors, otherwise, strict=True)]
    return torch.cat(moved)
