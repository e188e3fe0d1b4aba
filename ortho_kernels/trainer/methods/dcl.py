"""DCL (Yeh et al., ECCV 2022): SimCLR whose positive pair is taken out of the denominator."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .simclr import SimCLR


class DCL(SimCLR):
    @dataclass
    class Settings(SimCLR.Settings):
        name: str = "dcl"
        temperature: float = 0.1

    def loss(self, scores: Tensor, itself: Tensor, partner: Tensor) -> Tensor:
        """Equation 6, as a mean over the views."""
        positive = scores.gather(1, partner)
        negative = scores.scatter(1, torch.cat([itself, partner], dim=1), -torch.inf).logsumexp(1, keepdim=True)
        return (negative - self.weigh(positive)).mean()

    def weigh(self, positive: Tensor) -> Tensor:
        """The scores of positive pairs, `(views, 1)`, as they count in the loss."""
        return positive
