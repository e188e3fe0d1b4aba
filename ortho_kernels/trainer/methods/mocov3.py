"""MoCo v3 (Chen, Xie, He, ICCV 2021): a student's predictions find the teacher's keys in a large batch, no queue."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from lightly.models.modules.heads import ProjectionHead
from torch import Tensor, nn

from ..options import at_least, between, more_than, option
from .base import Method, Output
from .info_nce import info_nce
from .teacher import Teacher, TeacherSettings, momentum_at


class MoCoV3(Method):
    @dataclass
    class Settings(TeacherSettings):
        name: str = "mocov3"
        views: str = "asymmetric"
        hidden: int = option(4096, "width of the projector's hidden layers", at_least(1))
        projection: int = option(256, "width of its output", at_least(1))
        layers: int = option(2, "layers of the projector; the paper has 3 for transformers", between(2, 10))
        prediction_hidden: int = option(4096, "width of the predictor's hidden layer", at_least(1))
        prediction_norm: bool = option(False, "batch norm after the predictor; the authors' for transformers")
        temperature: float = option(0.2, "divides the cosines", more_than(0))

    def __init__(self, encoder: nn.Module, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.settings = settings
        features: Any = encoder.features
        self.projector = head(features, settings.hidden, settings.projection, settings.layers)
        self.predictor = head(
            settings.projection, settings.prediction_hidden, settings.projection, last_norm=settings.prediction_norm
        )
        self.teacher = Teacher(self.encoder, self.projector)

    def forward(self, views: list[Tensor]) -> Output:
        first, second = views
        first_projection = self.projector(self.encoder(first))
        second_projection = self.projector(self.encoder(second))
        temperature = self.settings.temperature
        loss = info_nce(self.predictor(first_projection), self.teacher(second), temperature) + info_nce(
            self.predictor(second_projection), self.teacher(first), temperature
        )
        return Output(2 * temperature * loss, first_projection)  # scaled as in the paper's algorithm 1

    def after_step(self, step: int, steps: int) -> None:
        momentum = momentum_at(step, steps, self.settings)
        self.teacher.follow(self.encoder, self.projector, momentum=momentum)


def head(inputs: int, hidden: int, outputs: int, layers: int = 2, last_norm: bool = True) -> nn.Module:
    """Linear layers without biases, each before a batch norm and, but for the last, a ReLU. The last norm neither scales
    nor shifts, as the authors have it; that of Lightly's MoCo head does."""
    widths = [inputs] + [hidden] * (layers - 1)
    blocks: list[Any] = [(m, n, nn.BatchNorm1d(n), nn.ReLU(), False) for m, n in pairwise(widths)]
    last = nn.BatchNorm1d(outputs, affine=False) if last_norm else None
    return ProjectionHead([*blocks, (hidden, outputs, last, None, False)])
