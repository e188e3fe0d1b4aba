"""BYOL (Grill et al., NeurIPS 2020): a student predicts what its slowly moving teacher says of the other view."""

import copy
from dataclasses import dataclass

import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
from lightly.models.utils import update_momentum
from lightly.utils.scheduler import cosine_schedule
from torch import Tensor, nn

from .base import Method, MethodSettings, Output


class BYOL(Method):
    @dataclass
    class Settings(MethodSettings):
        name: str = "byol"
        hidden: int = 4096  # width of the hidden layer of projector and predictor
        projection: int = 256
        momentum: float = 0.99  # of the teacher at the first step; it rises to 1 along a cosine

    def __init__(self, encoder: nn.Module, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.projector = BYOLProjectionHead(encoder.features, settings.hidden, settings.projection)
        self.predictor = BYOLPredictionHead(settings.projection, settings.hidden, settings.projection)
        self.teacher = copy.deepcopy(nn.Sequential(self.encoder, self.projector)).requires_grad_(False)
        self.criterion = NegativeCosineSimilarity()
        self.momentum = settings.momentum

    def forward(self, views: list[Tensor]) -> Output:
        first, second = views
        first_projection = self.projector(self.encoder(first))
        second_projection = self.projector(self.encoder(second))
        with torch.no_grad():
            first_target = self.teacher(first)
            second_target = self.teacher(second)
        loss = 0.5 * (
            self.criterion(self.predictor(first_projection), second_target)
            + self.criterion(self.predictor(second_projection), first_target)
        )
        return Output(loss, first_projection)

    def after_step(self, step: int, steps: int) -> None:
        momentum = cosine_schedule(step, steps, self.momentum, 1.0)
        update_momentum(nn.Sequential(self.encoder, self.projector), self.teacher, momentum)
