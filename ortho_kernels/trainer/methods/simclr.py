"""SimCLR (Chen et al., ICML 2020): two views of an image attract, views of all other images repel."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from lightly.models.modules import SimCLRProjectionHead
from lightly.utils import dist
from torch import Tensor, nn

from ..options import at_least, more_than, option
from .base import Method, MethodSettings, Output


class SimCLR(Method):
    @dataclass
    class Settings(MethodSettings):
        name: str = "simclr"
        hidden: int = option(2048, "width of the projector's hidden layer", at_least(1))
        projection: int = option(128, "width of its output", at_least(1))
        temperature: float = option(0.2, "divides the cosines", more_than(0))
        batch_norm: bool = option(True, "batch norm after both layers of the projector")

    def __init__(self, encoder: nn.Module, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.projector = SimCLRProjectionHead(
            encoder.features, settings.hidden, settings.projection, batch_norm=settings.batch_norm
        )
        self.settings: Any = settings

    def forward(self, views: list[Tensor]) -> Output:
        first, second = (self.projector(self.encoder(view)) for view in views)
        similarities, itself, partner = compare(first, second)
        return Output(self.loss(similarities / self.settings.temperature, itself, partner), first)

    def loss(self, scores: Tensor, itself: Tensor, partner: Tensor) -> Tensor:
        """Cross-entropy of each view's partner among all views but itself (equation 1)."""
        return F.cross_entropy(scores.scatter(1, itself, -torch.inf), partner.squeeze(1))


def compare(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each view of this process's images, beside each view of the joint batch of all processes.

    `first` and `second` are `(batch, dim)`. Returns cosines `(2 * batch, 2 * joint batch)` and two columns of indices,
    `(2 * batch, 1)` each: where in its row the view itself stands, and where the other view of its image.
    """
    own = F.normalize(torch.stack([first, second]), dim=2)
    everything = torch.cat(dist.gather(own), dim=1) if dist.world_size() > 1 else own
    images = torch.arange(len(first), device=first.device).unsqueeze(1) + dist.rank() * len(first)
    other = images + everything.shape[1]
    cosines = own.flatten(0, 1) @ everything.flatten(0, 1).T
    return cosines, torch.cat([images, other]), torch.cat([other, images])
