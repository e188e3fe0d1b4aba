"""Whether all ranks of a group mean the same weights: else each would wait for numbers that no rank computes."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import zip_longest
from typing import Any

import torch.distributed as dist

from ..options import SO, SRIP
from ..weight_views import WeightViews


def description_of(
    names: Sequence[str], weights: Sequence[Any], views: WeightViews, options: SO | SRIP
) -> tuple[str, ...]:
    """The options, and each weight."""
    forms = zip(names, views.views, views.gradient_forms, weights, strict=True)
    return (
        repr(options),
        *(
            f"{name}: {view} with strides {strides}, {dtype}{', trained' if weight.requires_grad else ', frozen'}"
            for name, view, (strides, dtype), weight in forms
        ),
    )


def check_shards(names: Sequence[str], weights: Sequence[Any], views: WeightViews, options: SO | SRIP) -> None:
    """As `check_agreement`, of sharded weights: each group of ranks has those that it shards. Nothing for others."""
    if not views.is_sharded:
        return
    options_first, *lines = description_of(names, weights, views, options)
    groups: dict[Any, list[int]] = {}
    for index, layout in enumerate(views.layouts):
        if layout is not None and layout.dims:
            groups.setdefault(layout.key, []).append(index)
    for indices in groups.values():
        check_agreement([options_first, *(lines[index] for index in indices)], weights[indices[0]].group)


def check_agreement(description: Sequence[str], group: Any) -> None:
    """A collective of a few bytes.

    Raises:
        ValueError: on every rank, where they describe their weights differently: the first difference.
    """
    own = blake2b("\n".join(description).encode(), digest_size=16).digest()
    if len(set(_gathered(own, group))) == 1:
        return
    descriptions = _gathered(list(description), group)
    for rank, other in enumerate(descriptions):
        for here, there in zip_longest(descriptions[0], other, fillvalue="nothing more"):
            if here != there:
                raise ValueError(
                    f"ranks that compute a penalty together need the same weights and options: rank 0 has {here}, and rank "
                    f"{rank} has {there}; make the model and the penalty alike on all of them"
                )


def _gathered(given: Any, group: Any) -> list[Any]:
    found = [None] * dist.get_world_size(group)
    dist.all_gather_object(found, given, group)
    return found
