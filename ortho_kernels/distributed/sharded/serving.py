"""What computes the penalties of sharded weights, kept with their views."""

from __future__ import annotations

from ...backends.protocol import Penalties
from ...backends.registry import serving
from ...options import SO, SRIP
from ...weight_views import WeightViews
from .penalties import ShardedPenalties


def serving_shards(views: WeightViews, options: SO | SRIP) -> Penalties:
    """As `serving`, for views of which some are sharded: all ranks together, each by the backend of what is here."""
    local = serving(views, options)
    penalties = views.sharded.get((local.name, options))
    if penalties is None:
        penalties = views.sharded[local.name, options] = ShardedPenalties(local, views, options)
    return penalties
