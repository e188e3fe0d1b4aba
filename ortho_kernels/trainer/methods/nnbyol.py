"""NNBYOL: BYOL whose targets are the nearest neighbors of the teacher's projections among those of earlier images.

BYOL with the queue of NNCLR (Dwibedi et al., ICCV 2021), as the solo-learn library combines them.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ..options import at_least, option
from .byol import BYOL
from .memory import Queue


class NNBYOL(BYOL):
    @dataclass
    class Settings(BYOL.Settings):
        name: str = "nnbyol"
        queue: int = option(65536, "projections of earlier images", at_least(1))

    def __init__(self, encoder: nn.Module, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.queue = Queue(settings.queue, settings.projection)

    def targets(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        first_target, second_target = (F.normalize(target, dim=1) for target in super().targets(first, second))
        self.queue.collect(first_target)
        return self.queue.nearest(first_target), self.queue.nearest(second_target)

    def after_step(self, step: int, steps: int) -> None:
        super().after_step(step, steps)
        self.queue.move()
