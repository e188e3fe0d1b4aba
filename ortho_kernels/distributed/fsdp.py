"""What FSDP does to the parameters of a model, and what to do about it."""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor, nn

_GATHERED = ("_unsharded_param", "_sharded_post_forward_param")  # attributes of FSDP2's own


class Shards:
    """The parameters of an encoder that FSDP2 shards, each with the place in which it puts gathered ones meanwhile.

    It does so in forward and backward, and the root's stay until the backward or `reshard()`. What is added to the gradient
    of a gathered parameter may never reach the sharded one, and its numbers may have been cast to a lower precision.
    """

    def __init__(self, encoder: nn.Module) -> None:
        self._modules = set(map(id, encoder.modules()))
        self._states: list[Any] = []  # weak references to those that there were when the places were looked up
        self._shards: list[Any] = []

    def replaced(self) -> dict[int, Tensor]:
        """The sharded parameters for which others stand now, by the identity of those."""
        found = {}
        for shard in self._all():
            place = shard._module_info
            current = place.module._parameters.get(place.param_name)
            # functional_call, and people, put other tensors there.
            if current is not None and any(current is getattr(shard, name, None) for name in _GATHERED):
                found[id(current)] = shard.sharded_param
        return found

    def _all(self) -> list[Any]:
        composable = sys.modules.get("torch.distributed._composable_state")
        states = [*getattr(composable, "_module_state_mapping", {}).values()]
        if states != self._states:
            self._states, self._shards = states, []
            for state in (reference() for reference in states):
                # One group a state until torch 2.13, then several; FSDP1's states have none.
                groups = getattr(state, "_fsdp_param_groups", None) or [getattr(state, "_fsdp_param_group", None)]
                for shard in (shard for group in groups if group is not None for shard in group.fsdp_params):
                    if id(shard._module_info.module) in self._modules:
                        self._shards.append(shard)
        return self._shards


def explained(error: ValueError, encoder: nn.Module) -> ValueError:
    """The error, with what to do where FSDP1 keeps the encoder's weights flat, which marks its parameters."""
    flat = any(getattr(parameter, "_fsdp_flattened", False) for parameter in encoder.parameters())
    return ValueError(f"{error}. {_FLAT}") if flat and _FLAT not in str(error) else error


_FLAT = (
    "FullyShardedDataParallel keeps weights flat between uses: make and call the penalty within "
    "FullyShardedDataParallel.summon_full_params(model, with_grads=True), which needs use_orig_params=True, or shard with "
    "fully_shard (FSDP2)"
)
