"""DCLW (Yeh et al., ECCV 2022): DCL whose positive pairs count the more, the less alike the two views are."""

from dataclasses import dataclass

import torch
from lightly.utils import dist
from torch import Tensor

from ..options import more_than, option
from .dcl import DCL


class DCLW(DCL):
    @dataclass
    class Settings(DCL.Settings):
        name: str = "dclw"
        sigma: float = option(0.5, "width of the von Mises-Fisher weights", more_than(0))

    def weigh(self, positive: Tensor) -> Tensor:
        return positive * mises_fisher_weights(positive.detach() * self.settings.temperature, self.settings.sigma)


def mises_fisher_weights(cosines: Tensor, sigma: float) -> Tensor:
    """w = 2 - exp(z1 z2 / sigma) / its mean over the joint batch of all processes (equation 7). Lightly's function
    takes the mean over one process's part of it."""
    similar = torch.exp(cosines / sigma)
    everywhere = torch.cat(dist.gather(similar)) if dist.world_size() > 1 else similar
    return 2 - similar / everywhere.mean()
