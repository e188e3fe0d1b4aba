"""An exponential moving average of a network's weights over the steps (Polyak averaging), for evaluation alone."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def average_of(network: nn.Module) -> nn.Module:
    """A copy that is not trained, to begin an average with."""
    return copy.deepcopy(network).requires_grad_(False)


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, momentum: float) -> None:
    """Moves the average's parameters: average = momentum * average + (1 - momentum) * network.

    Buffers are copied, as `torch.optim.swa_utils.AveragedModel` does: the statistics of batch norms are averages already.
    Of sharded weights each process moves its parts.
    """
    weights = _local_parts(average.parameters())
    torch._foreach_lerp_(weights, _local_parts(network.parameters()), 1 - momentum)
    for ours, theirs in zip(average.buffers(), network.buffers(), strict=True):
        ours.copy_(theirs)


def _local_parts(values: Iterable[Tensor]) -> list[Tensor]:
    return [value.to_local() if isinstance(value, DTensor) else value for value in values]
