"""NNCLR (Dwibedi et al., ICCV 2021): the positive of a view is the nearest neighbour of the other view in a queue."""

from dataclasses import dataclass

import torch.nn.functional as F
from lightly.models.modules import NNCLRPredictionHead, NNCLRProjectionHead
from torch import Tensor, nn

from .base import Method, MethodSettings, Output
from .info_nce import info_nce
from .memory import neighbours


class NNCLR(Method):
    @dataclass
    class Settings(MethodSettings):
        name: str = "nnclr"
        views: str = "asymmetric"
        hidden: int = 2048
        projection: int = 256
        prediction_hidden: int = 4096
        temperature: float = 0.1
        queue: int = 65536  # projections of earlier images

    def __init__(self, encoder: nn.Module, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.projector = NNCLRProjectionHead(encoder.features, settings.hidden, settings.projection)
        self.predictor = NNCLRPredictionHead(settings.projection, settings.prediction_hidden, settings.projection)
        self.queue = neighbours(settings.queue, settings.projection)
        self.temperature = settings.temperature

    def forward(self, views: list[Tensor]) -> Output:
        first, second = (self.projector(self.encoder(view)) for view in views)
        # The first view comes in last: neighbours are looked for among earlier images alone.
        second_neighbour = self.queue(F.normalize(second.detach(), dim=1), update=False)
        first_neighbour = self.queue(F.normalize(first.detach(), dim=1), update=True)
        loss = 0.5 * (
            info_nce(first_neighbour, self.predictor(second), self.temperature)
            + info_nce(second_neighbour, self.predictor(first), self.temperature)
        )
        return Output(loss, first)
