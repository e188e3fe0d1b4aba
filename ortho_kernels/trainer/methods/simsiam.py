"""SimSiam (Chen, He, CVPR 2021): each view predicts the other, whose gradient is stopped; nothing else."""

from dataclasses import dataclass

from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import SimSiamPredictionHead, SimSiamProjectionHead
from torch import Tensor, nn

from ..options import at_least, option
from .base import Method, MethodSettings, Output


class SimSiam(Method):
    @dataclass
    class Settings(MethodSettings):
        name: str = "simsiam"
        hidden: int = option(2048, "width of the projector's hidden layers", at_least(1))
        projection: int = option(2048, "width of its output", at_least(1))
        prediction_hidden: int = option(512, "width of the predictor's hidden layer, a bottleneck", at_least(1))
        constant_predictor_rate: bool = option(False, "the predictor's learning rate neither warms up nor falls")

    def __init__(self, encoder: nn.Module, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.settings = settings
        self.projector = SimSiamProjectionHead(encoder.features, settings.hidden, settings.projection)
        self.predictor = SimSiamPredictionHead(settings.projection, settings.prediction_hidden, settings.projection)
        self.criterion = NegativeCosineSimilarity()

    def forward(self, views: list[Tensor]) -> Output:
        first, second = (self.projector(self.encoder(view)) for view in views)
        loss = 0.5 * (
            self.criterion(self.predictor(first), second.detach())
            + self.criterion(self.predictor(second), first.detach())
        )
        return Output(loss, first)

    def constant_rate_modules(self) -> list[nn.Module]:
        return [self.predictor] if self.settings.constant_predictor_rate else []
