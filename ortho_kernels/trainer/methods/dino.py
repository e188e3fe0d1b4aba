"""DINO (Caron et al., ICCV 2021): a student gives every crop the soft classes that its teacher gives a large one."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from lightly.models.modules.heads import ProjectionHead
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..options import at_least, between, more_than, one_of, option
from .base import Method, Output
from .memory import Center
from .prototypes import Prototypes
from .teacher import Teacher, TeacherSettings, momentum_at


class DINO(Method):
    @dataclass
    class Settings(TeacherSettings):
        name: str = "dino"
        views: str = option("multicrop", "two, and small ones too", one_of("two", "asymmetric", "multicrop"))
        hidden: int = option(2048, "width of the projector's hidden layers", at_least(1))
        projection: int = option(256, "width of its output", at_least(1))
        prototypes: int = option(65536, "number of prototypes", at_least(1))
        fixed_lengths: bool = option(True, "prototypes keep the length 1")
        batch_norm: bool | None = option(None, "batch norm in the projector; by default where the encoder has it")
        freeze: float = option(0.01, "share of the steps in which prototypes do not move", between(0, 1))
        student_temperature: float = option(0.1, "divides the student's scores", more_than(0))
        teacher_temperature: float = option(0.04, "divides the teacher's scores at the first step", more_than(0))
        final_teacher_temperature: float = option(0.07, "to which that rises linearly", more_than(0))
        temperature_warmup: float = option(0.05, "share of the steps that the rise takes", between(0, 1))
        center_momentum: float = option(0.9, "momentum of the mean of the teacher's scores", between(0, 1))
        momentum: float = 0.996

    def __init__(self, encoder: nn.Module, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.settings = settings
        features: Any = encoder.features
        batch_norm = has_batch_norm(encoder) if settings.batch_norm is None else settings.batch_norm
        self.projector = projector(features, settings.hidden, settings.projection, batch_norm)
        self.prototypes = Prototypes(settings.projection, settings.prototypes, settings.fixed_lengths)
        self.teacher = Teacher(self.encoder, self.projector, self.prototypes)
        self.center = Center(settings.prototypes, settings.center_momentum)

    def forward(self, views: list[Tensor]) -> Output:
        projections = [self.projector(self.encoder(view)) for view in views]
        student = torch.stack([self.prototypes(projection) for projection in projections])
        teacher = torch.stack([self.teacher(view) for view in views[:2]])
        self.center.collect(teacher.mean((0, 1)))
        targets = F.softmax((teacher - self.center.mean) / self.teacher_temperature, dim=2)
        predictions = F.log_softmax(student / self.settings.student_temperature, dim=2)
        # The cross-entropy of each student view with each teacher view but its own, averaged over pairs and images.
        terms = -torch.einsum("tbk,sbk->ts", targets, predictions).fill_diagonal_(0)
        pairs = len(teacher) * (len(student) - 1)
        return Output(terms.sum() / (pairs * teacher.shape[1]), projections[0])

    @property
    def teacher_temperature(self) -> float:
        first, last = self.settings.teacher_temperature, self.settings.final_teacher_temperature
        warmup = self.settings.temperature_warmup
        return first + (last - first) * min(self.progress / warmup, 1.0) if warmup else last

    def before_step(self, step: int, steps: int) -> None:
        if step < self.settings.freeze * steps:
            self.prototypes.freeze()

    def after_step(self, step: int, steps: int) -> None:
        momentum = momentum_at(step, steps, self.settings)
        self.teacher.follow(self.encoder, self.projector, self.prototypes, momentum=momentum)
        self.center.move()


def has_batch_norm(encoder: nn.Module) -> bool:
    """The paper (section 3.1) leaves batch norm out of the head so that a ViT, which has none, trains without any."""
    return any(isinstance(layer, _BatchNorm) for layer in encoder.modules())


def projector(inputs: int, hidden: int, outputs: int, batch_norm: bool) -> nn.Module:
    """Three layers with GELU. Lightly's DINO head has its prototypes inside, under a weight norm that can't be copied."""

    def norm() -> nn.Module | None:
        return nn.BatchNorm1d(hidden) if batch_norm else None

    blocks = [(inputs, hidden, norm(), nn.GELU()), (hidden, hidden, norm(), nn.GELU()), (hidden, outputs, None, None)]
    head = ProjectionHead(blocks)
    for layer in head.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return head
