"""Which of several optimizers steps the weights that a penalty covers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .computed_weights import trained_sources
from .module import OrthogonalityPenalty
from .words import abridged


def holder(penalty: OrthogonalityPenalty, optimizers: Sequence[torch.optim.Optimizer]) -> torch.optim.Optimizer | None:
    """The one optimizer that holds all covered weights that require a gradient; None where no weight does.

    Raises:
        ValueError: for a weight that no optimizer holds, and for weights that are held by more than one.
    """
    held = [{id(parameter) for group in each.param_groups for parameter in group["params"]} for each in optimizers]
    names: list[list[str]] = [[] for _ in optimizers]  # of the weights that each holds
    missing: list[str] = []
    for name, parameter in _trained_parameters(penalty):
        holding = [own for own, ids in zip(names, held, strict=True) if id(parameter) in ids]
        for own in holding or [missing]:
            own.append(name)
    if missing:
        raise ValueError(
            f"no optimizer holds {abridged(missing)}, which the penalty covers: give the weights to an optimizer, freeze "
            "them, or `exclude` them from the penalty"
        )
    found = [index for index, own in enumerate(names) if own]
    if len(found) > 1:
        each = "; ".join(f"optimizer {index} holds {abridged(names[index])}" for index in found)
        raise ValueError(
            f"several optimizers hold the weights that the penalty covers, but it is added in the step of one: {each}; make "
            "a penalty for each optimizer, of its weights alone"
        )
    return optimizers[found[0]] if found else None


def _trained_parameters(penalty: OrthogonalityPenalty) -> Iterator[tuple[str, Tensor]]:
    """The parameters that the penalty's gradient goes to, each with the name of the covered weight."""
    penalty._refresh_if_changed()
    replaced = penalty._shards.replaced()
    for name, (owner, attribute) in zip(penalty.names, penalty._places, strict=True):
        weight = owner._parameters.get(attribute)
        if weight is None:  # it is computed
            yield from ((name, source) for source in trained_sources(owner, attribute))
        elif weight.requires_grad:
            yield name, replaced.get(id(weight), weight)
