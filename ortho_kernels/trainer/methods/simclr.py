"""SimCLR (Chen et al., ICML 2020): two views of an image attract, views of all other images repel."""

from dataclasses import dataclass

from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from torch import Tensor, nn

from .base import Method, MethodSettings, Output


class SimCLR(Method):
    @dataclass
    class Settings(MethodSettings):
        name: str = "simclr"
        hidden: int = 2048
        projection: int = 128
        temperature: float = 0.2
        batch_norm: bool = True  # after both layers of the projector

    def __init__(self, encoder: nn.Module, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.projector = SimCLRProjectionHead(
            encoder.features, settings.hidden, settings.projection, batch_norm=settings.batch_norm
        )
        self.criterion = self.criterion_of(settings)

    @staticmethod
    def criterion_of(settings: Settings) -> nn.Module:
        return NTXentLoss(settings.temperature, gather_distributed=True)

    def forward(self, views: list[Tensor]) -> Output:
        first, second = (self.projector(self.encoder(view)) for view in views)
        return Output(self.criterion(first, second), first)
