"""What this rank holds of each weight and of its gradient, as batches of matrices: `(batch, rows, cols)`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...backends.protocol import Into
from .weight import ShardedWeight


class LocalWeights:
    """The local parts of a list of weights, and where their gradients go.

    Attributes:
        weights: one a weight.
        targets: likewise; None where no gradient is wanted.
        accumulate: whether gradients are added to the targets.
    """

    def __init__(self, weights: Sequence[Any], into: Into) -> None:
        self.all, self.accumulate = weights, into.accumulate
        self.weights = [_as_matrices(weight, weight) for weight in weights]
        self.targets: list[Tensor | None] = []
        self._apart: list[tuple[Any, Any, Tensor]] = []  # targets whose memory has another order
        for weight, target in zip(weights, into.targets, strict=True):
            self.targets.append(None if target is None else self._writable(weight, target))

    @property
    def wants_gradients(self) -> bool:
        return any(target is not None for target in self.targets)

    def finish(self) -> None:
        """To be called once all gradients are written."""
        for weight, target, written in self._apart:
            local = _local(target)
            gradient = _in_shape(written, weight, local)
            local.add_(gradient) if self.accumulate else local.copy_(gradient)

    def _writable(self, weight: Any, target: Any) -> Tensor:
        found = _as_matrices(weight, target)
        # What this rank holds in full is computed as one weight, its matrices one above the other.
        memory = found if _is_cut(weight) else found.flatten(0, 1)
        if memory.data_ptr() == _local(target).data_ptr():
            return found
        apart = torch.zeros_like(found, memory_format=torch.contiguous_format)
        self._apart.append((weight, target, apart))
        return apart


def times(local: Tensor, weight: Any, factors: Tensor) -> Tensor:
    """A gradient times the factor of each of its weight's matrices; of a sharded weight, what is here of both."""
    if len(factors) == 1:
        return (local * factors.view([1] * local.dim())).to(local.dtype)
    if not isinstance(weight, ShardedWeight):
        return (local.reshape(len(factors), -1) * factors[:, None]).to(local.dtype).view_as(local)
    layout, block = weight.layout, weight.block
    cuts = len(factors) // layout.sizes[0]
    batch = torch.arange(*block.batch, device=local.device)
    cut = torch.arange(*block.rows, device=local.device) // (layout.sizes[1] // cuts)
    each = factors[batch[:, None] * cuts + cut]
    return _in_shape((_as_matrices(weight, local) * each[:, :, None]).to(local.dtype), weight, local)


def _is_cut(weight: Any) -> bool:
    return isinstance(weight, ShardedWeight) and bool(weight.layout.dims)


def _local(tensor: Any) -> Tensor:
    """What this rank holds of a weight or of a gradient."""
    return tensor.local if isinstance(tensor, ShardedWeight) else tensor


def _as_matrices(weight: Any, tensor: Any) -> Tensor:
    if isinstance(weight, ShardedWeight):
        return weight.as_matrices(_local(tensor))
    return tensor.reshape(1, len(tensor), tensor[0].numel() if len(tensor) else 0)


def _in_shape(matrices: Tensor, weight: Any, local: Tensor) -> Tensor:
    """The inverse of `_as_matrices`."""
    if isinstance(weight, ShardedWeight) and weight.transposed:
        return matrices.reshape(local.mT.shape).mT
    return matrices.reshape(local.shape)
