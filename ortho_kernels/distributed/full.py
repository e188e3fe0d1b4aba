"""Sharded weights in full, where nothing smaller will do."""

from __future__ import annotations

from torch import Tensor

from ..weight_checks import PLAIN, is_sharded


def full_tensors(weights: list[Tensor]) -> list[Tensor]:
    """Each weight, in full where a process holds but a part of it: a collective, so every process must ask. In the
    backward, each keeps its part of the gradient, which all of them compute alike."""
    if PLAIN.issuperset(map(type, weights)):  # asked in every step: the usual answer comes first
        return weights
    return [weight.full_tensor() if is_sharded(weight) else weight for weight in weights]  # type: ignore[attr-defined]
