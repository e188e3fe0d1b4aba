"""MoCo v2+ (Chen et al. 2020, arXiv 2003.04297, made symmetric): a query finds its key among a queue of earlier keys."""

from dataclasses import dataclass

from lightly.loss import NTXentLoss
from lightly.models.modules import MoCoProjectionHead
from torch import Tensor, nn

from .base import Method, MethodSettings, Output
from .memory import kept
from .teacher import Teacher, momentum_at


class MoCoV2Plus(Method):
    @dataclass
    class Settings(MethodSettings):
        name: str = "mocov2plus"
        hidden: int = 2048
        projection: int = 256
        temperature: float = 0.2
        queue: int = 65536  # keys of earlier images, for each of the two views
        momentum: float = 0.99  # of the teacher at the first step ...
        final_momentum: float = 0.999  # ... and at the last

    def __init__(self, encoder: nn.Module, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.settings = settings
        self.projector = MoCoProjectionHead(encoder.features, settings.hidden, settings.projection)
        self.teacher = Teacher(self.encoder, self.projector)
        self.first_criterion, self.second_criterion = self._criterion(), self._criterion()

    def forward(self, views: list[Tensor]) -> Output:
        first, second = views
        first_query = self.projector(self.encoder(first))
        second_query = self.projector(self.encoder(second))
        loss = 0.5 * (
            self.first_criterion(first_query, self.teacher(second))
            + self.second_criterion(second_query, self.teacher(first))
        )
        return Output(loss, first_query)

    def after_step(self, step: int, steps: int) -> None:
        momentum = momentum_at(step, steps, self.settings.momentum, self.settings.final_momentum)
        self.teacher.follow(self.encoder, self.projector, momentum=momentum)

    def _criterion(self) -> NTXentLoss:
        size = (self.settings.queue, self.settings.projection)
        criterion = NTXentLoss(self.settings.temperature, memory_bank_size=size, gather_distributed=True)
        kept(criterion.memory_bank)
        return criterion
