"""The penalty over a model: which weights, from which start vectors, with which gamma, and how it is applied."""

from .lora import LoraPenalty
from .module import OrthogonalityPenalty
from .paper_gamma import paper_gamma
from .schedules import CosineSchedule, Schedule, StepSchedule

__all__ = ["CosineSchedule", "LoraPenalty", "OrthogonalityPenalty", "Schedule", "StepSchedule", "paper_gamma"]
