"""MoCo v2+ (Chen et al. 2020, arXiv 2003.04297, made symmetric): a query finds its key among a queue of earlier keys."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from lightly.models.modules import MoCoProjectionHead
from torch import Tensor, nn

from ..options import at_least, more_than, option
from .base import Method, Output
from .memory import Queue
from .teacher import Teacher, TeacherSettings, momentum_at


class MoCoV2Plus(Method):
    @dataclass
    class Settings(TeacherSettings):
        name: str = "mocov2plus"
        hidden: int = option(2048, "width of the projector's hidden layer", at_least(1))
        projection: int = option(256, "width of its output", at_least(1))
        temperature: float = option(0.2, "divides the cosines", more_than(0))
        queue: int = option(65536, "keys of earlier images, for each of the two views", at_least(1))
        final_momentum: float = 0.999

    def __init__(self, encoder: nn.Module, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.settings = settings
        self.projector = MoCoProjectionHead(encoder.features, settings.hidden, settings.projection)
        self.teacher = Teacher(self.encoder, self.projector)
        self.first_queue, self.second_queue = (Queue(settings.queue, settings.projection) for _ in range(2))

    def forward(self, views: list[Tensor]) -> Output:
        first, second = views
        first_query = self.projector(self.encoder(first))
        second_query = self.projector(self.encoder(second))
        loss = 0.5 * (
            self._contrast(first_query, self.teacher(second), self.second_queue)
            + self._contrast(second_query, self.teacher(first), self.first_queue)
        )
        return Output(loss, first_query)

    def after_step(self, step: int, steps: int) -> None:
        momentum = momentum_at(step, steps, self.settings)
        self.teacher.follow(self.encoder, self.projector, momentum=momentum)
        self.first_queue.move()
        self.second_queue.move()

    def _contrast(self, queries: Tensor, keys: Tensor, queue: Queue) -> Tensor:
        """Cross-entropy of each query's own key among this and the keys of earlier images, of the same view."""
        queries, keys = F.normalize(queries, dim=1), F.normalize(keys, dim=1)
        queue.collect(keys)
        own = (queries * keys).sum(1, keepdim=True)
        scores = torch.cat([own, queries @ queue.vectors.T], dim=1) / self.settings.temperature
        return F.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long, device=scores.device))
