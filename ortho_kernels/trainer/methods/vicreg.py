"""VICReg (Bardes, Ponce, LeCun, ICLR 2022): views agree, every dimension varies, no two dimensions covary."""

from dataclasses import dataclass

from lightly.loss import VICRegLoss
from lightly.models.modules.heads import VICRegProjectionHead
from torch import Tensor, nn

from .base import Method, MethodSettings, Output


class VICReg(Method):
    @dataclass
    class Settings(MethodSettings):
        name: str = "vicreg"
        hidden: int = 2048
        projection: int = 2048
        layers: int = 3  # of the projector
        invariance: float = 25.0  # the weights of the three terms
        variance: float = 25.0
        covariance: float = 1.0

    def __init__(self, encoder: nn.Module, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.projector = VICRegProjectionHead(
            encoder.features, settings.hidden, settings.projection, num_layers=settings.layers
        )
        self.criterion = VICRegLoss(
            settings.invariance, settings.variance, settings.covariance, gather_distributed=True
        )

    def forward(self, views: list[Tensor]) -> Output:
        first, second = (self.projector(self.encoder(view)) for view in views)
        return Output(self.criterion(first, second), first)
