"""NNCLR (Dwibedi et al., ICCV 2021): the positive of a view is the nearest neighbor of the other view in a queue."""

from dataclasses import dataclass

import torch.nn.functional as F
from lightly.models.modules import NNCLRPredictionHead, NNCLRProjectionHead
from torch import Tensor, nn

from ..options import at_least, more_than, option
from .base import Method, MethodSettings, Output
from .info_nce import info_nce
from .memory import Queue


class NNCLR(Method):
    @dataclass
    class Settings(MethodSettings):
        name: str = "nnclr"
        views: str = "asymmetric"
        hidden: int = option(2048, "width of the projector's hidden layers", at_least(1))
        projection: int = option(256, "width of its output", at_least(1))
        prediction_hidden: int = option(4096, "width of the predictor's hidden layer", at_least(1))
        temperature: float = option(0.1, "divides the cosines", more_than(0))
        queue: int = option(65536, "projections of earlier images", at_least(1))

    def __init__(self, encoder: nn.Module, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.projector = NNCLRProjectionHead(encoder.features, settings.hidden, settings.projection)
        self.predictor = NNCLRPredictionHead(settings.projection, settings.prediction_hidden, settings.projection)
        self.queue = Queue(settings.queue, settings.projection)
        self.temperature = settings.temperature

    def forward(self, views: list[Tensor]) -> Output:
        first, second = (self.projector(self.encoder(view)) for view in views)
        self.queue.collect(F.normalize(first, dim=1))
        loss = 0.5 * (
            info_nce(self.queue.nearest(first), self.predictor(second), self.temperature)
            + info_nce(self.queue.nearest(second), self.predictor(first), self.temperature)
        )
        return Output(loss, first)

    def after_step(self, step: int, steps: int) -> None:
        self.queue.move()
