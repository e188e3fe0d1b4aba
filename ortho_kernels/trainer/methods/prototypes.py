"""Learned directions that features are compared with (SwAV, DINO)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Prototypes(nn.Linear):
    """Cosines of each vector with `count` learned directions: `(batch, dim)` to `(batch, count)`.

    A linear layer without bias whose rows count by their direction alone, which is what a weight norm of fixed length 1
    does; but it can be copied, and its weight is found where a linear layer's weight is. With `fixed_lengths=False`
    each prototype also learns a length, which starts at 1 and scales its cosines.
    """

    def __init__(self, dim: int, count: int, fixed_lengths: bool = True) -> None:
        super().__init__(dim, count, bias=False)
        self.lengths = None if fixed_lengths else nn.Parameter(torch.ones(count))

    def forward(self, features: Tensor) -> Tensor:
        cosines = F.linear(F.normalize(features, dim=1), F.normalize(self.weight, dim=1))
        return cosines if self.lengths is None else cosines * self.lengths

    def freeze(self) -> None:
        """Lets the coming optimizer step pass by: no gradient, no decay, no momentum."""
        for parameter in self.parameters():
            parameter.grad = None
