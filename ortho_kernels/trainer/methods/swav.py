"""SwAV (Caron et al., NeurIPS 2020): every crop predicts to which prototypes the other crops of its image belong."""

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from lightly.loss import SwaVLoss
from lightly.models.modules import SwaVProjectionHead
from lightly.utils import dist
from torch import Tensor, nn

from ..options import at_least, between, more_than, one_of, option
from .base import Method, MethodSettings, Output
from .memory import Queue
from .prototypes import Prototypes


class SwAV(Method):
    @dataclass
    class Settings(MethodSettings):
        name: str = "swav"
        views: str = option("multicrop", "two, and small ones too", one_of("two", "asymmetric", "multicrop"))
        hidden: int = option(2048, "width of the projector's hidden layer", at_least(1))
        projection: int = option(128, "width of its output", at_least(1))
        prototypes: int = option(3000, "number of prototypes", at_least(1))
        freeze: float = option(0.002, "share of the steps in which prototypes do not move", between(0, 1))
        normalize_in_place: bool = option(False, "normalize prototypes after each step, not in each forward pass")
        temperature: float = option(0.1, "divides the cosines", more_than(0))
        epsilon: float = option(0.05, "how soft the assignments are", more_than(0))
        iterations: int = option(3, "iterations of Sinkhorn and Knopp's algorithm", at_least(1))
        queue: int = option(3840, "projections of earlier images, for each large view; 0 for none", at_least(0))
        queue_start: float = option(0.05, "share of the steps before they take part in assignments", between(0, 1))

    def __init__(self, encoder: nn.Module, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.settings = settings
        self.projector = SwaVProjectionHead(encoder.features, settings.hidden, settings.projection)
        self.prototypes = Prototypes(settings.projection, settings.prototypes, in_place=settings.normalize_in_place)
        self.criterion = SwaVLoss(
            settings.temperature, settings.iterations, settings.epsilon, sinkhorn_gather_distributed=True
        )
        self.queues: Any = nn.ModuleList(
            Queue(settings.queue, settings.projection) for _ in range(2 * (settings.queue > 0))
        )

    def forward(self, views: list[Tensor]) -> Output:
        projections = [self.projector(self.encoder(view)) for view in views]
        scores = [self.prototypes(projection) for projection in projections]
        loss = self.criterion(scores[:2], scores[2:], self._earlier(projections[:2]))
        return Output(loss.squeeze(), projections[0])

    def before_step(self, step: int, steps: int) -> None:
        if step < self.settings.freeze * steps:
            self.prototypes.freeze()

    def after_step(self, step: int, steps: int) -> None:
        self.prototypes.normalize_()
        for queue in self.queues:
            queue.move()

    def _earlier(self, projections: list[Tensor]) -> list[Tensor] | None:
        """The scores of earlier images, which the present ones are assigned beside; these come in after the step."""
        for queue, projection in zip(self.queues, projections, strict=False):
            queue.collect(F.normalize(projection, dim=1))
        if not self.queues or self.progress < self.settings.queue_start:
            return None
        # All processes hold the same queue, and the assignments are made over all of them: each brings its share.
        return [self.prototypes(queue.vectors[dist.rank() :: dist.world_size()]).detach() for queue in self.queues]
