"""Whether all ranks of a group mean the same weights: else each would wait for numbers that no rank computes."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import zip_longest
from typing import Any

import torch.distributed as dist


def check_agreement(description: Sequence[str], group: Any) -> None:
    """A collective of a few bytes.

    Raises:
        ValueError: on every rank, where they describe their weights differently: the first difference.
    """
    own = blake2b("\n".join(description).encode(), digest_size=16).digest()
    if len(set(_gathered(own, group))) == 1:
        return
    described = _gathered(list(description), group)
    for rank, other in enumerate(described):
        for here, there in zip_longest(described[0], other, fillvalue="nothing more"):
            if here != there:
                raise ValueError(
                    f"share needs the same penalty of the same weights on every rank: rank 0 has {here}, and rank {rank} "
                    f"has {there}; make the model and the penalty alike on all ranks, or leave share out"
                )


def _gathered(given: Any, group: Any) -> list[Any]:
    found = [None] * dist.get_world_size(group)
    dist.all_gather_object(found, given, group)
    return found
