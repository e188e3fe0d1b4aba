"""What a method is to the trainer: a module that turns the views of a batch into a loss."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from omegaconf import MISSING
from torch import Tensor, nn

from ..distributed.processes import ALONE, Ranks
from ..errors import TrainerError
from ..host_copies import to_device
from ..options import one_of, option
from ..randomness import host_generator_for


class Output(NamedTuple):
    loss: Tensor
    projections: Tensor  # of the first view, a row a picture; their spread shows a collapse


@dataclass
class MethodSettings:
    """What every method has."""

    name: str = MISSING  # under which it was chosen
    # A subclass that takes other views declares them; data/view_settings.py has all kinds.
    views: str = option("two", "two drawn alike, or one of them otherwise", one_of("two", "asymmetric"))


@dataclass(frozen=True)
class BatchPlace:
    """Which batch of which run. What a method draws is a function of it, so that a resume is exact."""

    seed: int = 0
    number: int = 0
    ranks: Ranks = ALONE  # each holds its part of the batch

    def uniform(self, purpose: str, count: int, width: int, device: torch.device) -> Tensor:
        """float32 `(count, width)` in [0, 1): a row for each of this process's pictures. Together the processes draw what
        one would."""
        generator = host_generator_for(self.seed, purpose, self.number)
        drawn = generator.random((self.ranks.count * count, width), dtype=np.float32)
        return to_device(drawn[self.ranks.rank * count :][:count], device)


class Method(nn.Module, ABC):
    """Holds `encoder`, which is what the penalty sees and what is evaluated, and the heads around it.

    `ema` is None or the trainer's average of the encoder (`trainer.ema`), of which a method need not know.
    """

    Settings: type[Any] = MethodSettings  # the options of the method with their defaults; a subclass of this one
    encoder: nn.Module
    ema: nn.Module | None
    progress: float = 0.0  # share of the run that is done; the trainer sets it before each forward pass
    place: BatchPlace = BatchPlace()  # of the batch; the trainer sets it too

    def __init__(self, encoder: nn.Module, settings: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_module("ema", None)

    @abstractmethod
    def forward(self, views: list[Tensor]) -> Output:
        """As many views as `views` says. The first two are large and of one size; what follows them is small."""

    def network(self, name: str) -> nn.Module:
        """The encoder that is evaluated and exported: `student`, which is trained, `teacher`, its slow copy, or `ema`, its
        average."""
        if name == "student":
            return self.encoder
        if name == "ema":
            if self.ema is None:
                raise TrainerError(
                    "evaluation.network=ema: this run keeps no average of its weights; give trainer.ema=0.999 too, or "
                    "evaluation.network=student."
                )
            return self.ema
        teacher = getattr(self, "teacher", None)
        if teacher is None:
            raise TrainerError(
                f"evaluation.network=teacher: {type(self).__name__} has no teacher; give evaluation.network=student."
            )
        return teacher[0]

    def illustrate(self, images: Tensor) -> list[Tensor]:
        """What shows in pictures how far the method has come: normalized images as these, a tensor for each row of the
        report's figure. None by default."""
        return []

    def constant_rate_modules(self) -> list[nn.Module]:
        """Modules whose learning rate neither warms up nor falls."""
        return []

    def before_step(self, step: int, steps: int) -> None:
        """Called when the gradients of optimizer step number `step` of `steps`, counted from 0, are complete."""

    def after_step(self, step: int, steps: int) -> None:
        """Called after that step; moves what is not trained: teachers, queues, centers."""
