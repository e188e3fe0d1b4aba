"""BYOL (Grill et al., NeurIPS 2020): a student predicts the output of its slowly moving teacher for the other view."""

from dataclasses import dataclass

import torch.nn.functional as F
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
from torch import Tensor, nn

from ..options import at_least, option
from .base import Method, Output
from .teacher import Teacher, TeacherSettings, momentum_at


class BYOL(Method):
    @dataclass
    class Settings(TeacherSettings):
        name: str = "byol"
        views: str = "asymmetric"
        hidden: int = option(4096, "width of the projector's hidden layer", at_least(1))
        projection: int = option(256, "width of its output", at_least(1))
        prediction_hidden: int = option(4096, "width of the predictor's hidden layer", at_least(1))

    def __init__(self, encoder: nn.Module, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.settings = settings
        self.projector = BYOLProjectionHead(encoder.features, settings.hidden, settings.projection)
        self.predictor = BYOLPredictionHead(settings.projection, settings.prediction_hidden, settings.projection)
        self.teacher = Teacher(self.encoder, self.projector)

    def forward(self, views: list[Tensor]) -> Output:
        first, second = views
        first_projection = self.projector(self.encoder(first))
        second_projection = self.projector(self.encoder(second))
        first_target, second_target = self.targets(first, second)
        loss = regression_loss(self.predictor(first_projection), second_target) + regression_loss(
            self.predictor(second_projection), first_target
        )
        return Output(loss, first_projection)

    def targets(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """What is to be predicted of each view."""
        return self.teacher(first), self.teacher(second)

    def after_step(self, step: int, steps: int) -> None:
        momentum = momentum_at(step, steps, self.settings)
        self.teacher.follow(self.encoder, self.projector, momentum=momentum)


def regression_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared distance of the two as unit vectors, 2 - 2 cos, averaged over the batch (equation 2)."""
    return 2 - 2 * F.cosine_similarity(prediction, target).mean()
