"""An exponential moving average of a network's weights over the steps (Polyak averaging), for evaluation alone."""

import copy

import torch
from torch import nn

from ..distributed.sharding import local_part


def average_of(network: nn.Module) -> nn.Module:
    """A copy that is not trained, to begin an average with."""
    return copy.deepcopy(network).requires_grad_(False)


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, momentum: float) -> None:
    """Moves the average's parameters: average = momentum * average + (1 - momentum) * network.

    Buffers are copied, as `torch.optim.swa_utils.AveragedModel` does: the statistics of batch norms are averages already.
    Of sharded weights each process moves its parts.
    """
    ours, theirs = ([local_part(weight) for weight in each.parameters()] for each in (average, network))
    torch._foreach_lerp_(ours, theirs, 1 - momentum)
    for kept, current in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(current)
