"""Weights that several processes share out among them (FSDP2, tensor parallelism)."""

from __future__ import annotations

from torch import Tensor, nn

_PLAIN = (nn.Parameter, Tensor)


def whole(weight: Tensor) -> Tensor:
    """The full weight where a process holds but a part of it (a `DTensor`): a collective, so every process must ask. In
    the backward, each keeps its part of the gradient, which all of them compute alike."""
    if type(weight) in _PLAIN:  # asked once a weight in every step: the usual answer comes first
        return weight
    gather = getattr(weight, "full_tensor", None)  # torch.distributed.tensor takes a while to import: ask the weight
    return weight if gather is None else gather()
