"""Learned directions that features are compared with (SwAV, DINO)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Prototypes(nn.Linear):
    """Cosines of each vector with `count` learned directions: `(batch, dim)` to `(batch, count)`.

    A linear layer without bias whose rows count by their direction alone, as under a weight norm of fixed length 1. But it
    can be copied, and its weight is found where a linear layer's weight is. With `fixed_lengths=False` each prototype
    also learns a length, which starts at 1 and scales its cosines. With `in_place` the rows themselves have length 1,
    `normalize_` restores it after a step, and gradients may point along them.
    """

    def __init__(self, dim: int, count: int, fixed_lengths: bool = True, in_place: bool = False) -> None:
        super().__init__(dim, count, bias=False)
        self.lengths = None if fixed_lengths else nn.Parameter(torch.ones(count))
        self.in_place = in_place
        self.normalize_()

    def forward(self, features: Tensor) -> Tensor:
        directions = self.weight if self.in_place else F.normalize(self.weight, dim=1)
        cosines = F.linear(F.normalize(features, dim=1), directions)
        return cosines if self.lengths is None else cosines * self.lengths

    @torch.no_grad()
    def normalize_(self) -> None:
        """Gives rows that are normalized in place their length 1 again; called after every step."""
        if self.in_place:
            self.weight.copy_(F.normalize(self.weight, dim=1))

    def freeze(self) -> None:
        """Lets the coming optimizer step pass by: no gradient, no decay, no momentum."""
        for parameter in self.parameters():
            parameter.grad = None
