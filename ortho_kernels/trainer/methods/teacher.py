"""The slowly moving copy of a student, whose outputs are the student's targets."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from lightly.models.utils import update_momentum
from lightly.utils.scheduler import cosine_schedule
from torch import Tensor, nn

from ..options import between, option
from .base import MethodSettings


@dataclass
class TeacherSettings(MethodSettings):
    momentum: float = option(0.99, "momentum of the teacher at the first step", between(0, 1))
    final_momentum: float = option(1.0, "momentum of the teacher at the last step", between(0, 1))


class Teacher(nn.Sequential):
    """Starts as the student's modules, follows them as an exponential moving average, and never gets a gradient.

    Nothing in it is random: dropout and stochastic depth are the student's alone, as in the code of DINO's authors.
    """

    def __init__(self, *student: nn.Module) -> None:
        super().__init__(*copy.deepcopy(student))
        self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> "Teacher":
        """Puts the layers with running statistics in training mode: they take the statistics of the batch, as the
        student's do. All other layers stay in evaluation mode."""
        super().train(False)
        for layer in self.modules():
            if hasattr(layer, "running_var"):
                layer.training = mode
        return self

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)

    def follow(self, *student: nn.Module, momentum: float) -> None:
        """teacher = momentum * teacher + (1 - momentum) * student, for parameters; batch statistics are its own."""
        update_momentum(nn.Sequential(*student), self, momentum)


def momentum_at(step: int, steps: int, settings: Any) -> float:
    """The teacher's momentum after step number `step` of `steps`, along half a cosine; see `TeacherSettings`."""
    return cosine_schedule(step, steps, settings.momentum, settings.final_momentum)
