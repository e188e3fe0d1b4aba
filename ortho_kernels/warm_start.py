"""SRIP's vectors, kept from step to step: with them the power iteration converges over a training run at no cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from . import functional, ops, reference
from .plan import Plan
from .value_and_grad import srip_values_and_gradients


class WarmStart(nn.Module):
    """The vector x_m of every matrix after the last step, packed; a buffer, so it survives checkpoints and moves.

    In training mode the vectors move on with every evaluation; else they stay, and none are kept.
    """

    vectors: Tensor
    _matrix: Tensor  # of each entry

    def __init__(self, weights: list[Tensor], plan: Plan, side: str) -> None:
        super().__init__()
        self.register_buffer("vectors", functional.pack_start(None, weights, plan, side))
        matrix = torch.arange(sum(plan.groups)).repeat_interleave(torch.tensor(plan.orders(side)))
        self.register_buffer("_matrix", matrix.to(self.vectors.device), persistent=False)

    def values(self, weights: list[Tensor], plan: Plan, options: dict[str, Any]) -> Tensor:
        """The differentiable penalty of every matrix from the kept vectors; options as of `functional.srip_values`."""
        start = self._start(weights, plan)
        values, kept = functional.srip_values(weights, plan, start, **options, keep=self.training)
        if self.training:
            with torch.no_grad():
                pairs = options["iterations"] if options["gradient"] == "through" else 1
                last = ops.last_vectors(kept, plan.orders(options["side"]), pairs) if kept.numel() else None
                self._move_on(last, values, start, weights, plan, options)
        return values

    def values_and_gradients(
        self,
        weights: list[Tensor],
        plan: Plan,
        gradients: Sequence[Tensor | None],
        scale: float,
        options: dict[str, Any],
    ) -> Tensor:
        """As `values`, without a graph; `scale` times the gradients are added to those given."""
        start = self._start(weights, plan)
        values, last = srip_values_and_gradients(weights, plan, start, gradients, scale, True, **options)
        if self.training:
            with torch.no_grad():
                self._move_on(last if last.numel() else None, values, start, weights, plan, options)
        return values

    def _start(self, weights: Sequence[Tensor], plan: Plan) -> Tensor:
        # The model may have been moved or cast since, and its penalty with it or not.
        return self.vectors.to(weights[0].device, plan.dtype, copy=True)

    def _move_on(
        self,
        last: Tensor | None,
        values: Tensor,
        start: Tensor,
        weights: Sequence[Tensor],
        plan: Plan,
        options: dict[str, Any],
    ) -> None:
        if last is None:  # the torch backend tells values alone
            side = options["side"]
            Ws = reference.matrices(weights, plan.groups)
            xs = start.split(plan.orders(side))
            last = torch.cat(
                [reference.iterate(W, x, side, options["iterations"]) for W, x in zip(Ws, xs, strict=True)]
            )
        # A zero vector (of R = 0) would stay zero for ever, whatever W becomes: the one before it is kept instead.
        self.vectors.copy_(torch.where((values == 0)[self._matrix.to(values.device)], start, last))
