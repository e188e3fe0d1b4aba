"""VICReg (Bardes, Ponce, LeCun, ICLR 2022): views agree, every dimension varies, no two dimensions covary."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from lightly.models.modules.heads import VICRegProjectionHead
from lightly.utils import dist
from torch import Tensor, nn

from ..options import at_least, between, option
from .base import Method, MethodSettings, Output


class VICReg(Method):
    @dataclass
    class Settings(MethodSettings):
        name: str = "vicreg"
        hidden: int = option(2048, "width of the projector's hidden layers", at_least(1))
        projection: int = option(2048, "width of its output", at_least(1))
        layers: int = option(3, "layers of the projector", between(2, 10))
        invariance: float = option(25.0, "weight of the distance between views", at_least(0))
        variance: float = option(25.0, "weight of the hinge on standard deviations", at_least(0))
        covariance: float = option(1.0, "weight of the squared covariances", at_least(0))

    def __init__(self, encoder: nn.Module, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.projector = VICRegProjectionHead(
            encoder.features, settings.hidden, settings.projection, num_layers=settings.layers
        )
        self.settings = settings

    def forward(self, views: list[Tensor]) -> Output:
        first, second = (self.projector(self.encoder(view)) for view in views)
        both = first, second
        if dist.world_size() > 1:  # variances and covariances are of the joint batch
            both = torch.cat(dist.gather(first)), torch.cat(dist.gather(second))
        loss = (
            self.settings.invariance * F.mse_loss(first, second)
            + self.settings.variance * sum(variance_loss(view) for view in both) / 2
            + self.settings.covariance * sum(covariance_loss(view) for view in both)
        )
        return Output(loss, first)


def variance_loss(features: Tensor) -> Tensor:
    """How far the standard deviations of features `(batch, dim)` are below 1, averaged over dimensions."""
    return F.relu(1 - (features.var(0) + 1e-4).sqrt()).mean()


def covariance_loss(features: Tensor) -> Tensor:
    """The squared covariances of different dimensions, summed and divided by the number of dimensions."""
    centered = features - features.mean(0)
    covariance = centered.T @ centered / (len(features) - 1)
    return covariance.square().fill_diagonal_(0).sum() / len(covariance)
