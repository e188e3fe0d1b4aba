"""DCLW (Yeh et al., ECCV 2022): DCL whose positive pairs count the more, the less alike the two views are."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from lightly.loss import DCLLoss
from lightly.utils import dist
from torch import Tensor, nn

from .dcl import DCL


class DCLW(DCL):
    @dataclass
    class Settings(DCL.Settings):
        name: str = "dclw"
        sigma: float = 0.5  # of the von Mises-Fisher weights

    @staticmethod
    def criterion_of(settings: Any) -> nn.Module:
        weights = partial(mises_fisher_weights, sigma=settings.sigma)
        return DCLLoss(settings.temperature, weight_fn=weights, gather_distributed=True)


@torch.no_grad()
def mises_fisher_weights(first: Tensor, second: Tensor, sigma: float) -> Tensor:
    """w = 2 - exp(z1 z2 / sigma) / its mean over the joint batch of all processes (equation 7). Lightly's function
    takes the mean over one process's part of it."""
    similar = torch.exp((first * second).sum(1) / sigma)
    everywhere = torch.cat(dist.gather(similar)) if dist.world_size() > 1 else similar
    return 2 - similar / everywhere.mean()
