"""Who computes a penalty: a backend, or all ranks that hold a part of its weights."""

from __future__ import annotations

from ..backends import registry
from ..backends.protocol import Penalties
from ..options import SO, SRIP
from ..weight_views import WeightViews
from .sharded.penalties import ShardedPenalties


def penalties_of(views: WeightViews, options: SO | SRIP) -> Penalties:
    """The backend for these options and weights, or the ranks that hold them; kept with the views."""
    backend = registry.serving(views, options)
    if not views.is_sharded:
        return backend
    penalties = views.sharded.get((backend.name, options))
    if penalties is None:
        penalties = views.sharded[backend.name, options] = ShardedPenalties(backend, views, options)
    return penalties
