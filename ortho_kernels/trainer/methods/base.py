"""What a method is to the trainer: a module that turns the views of a batch into a loss."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

from omegaconf import MISSING
from torch import Tensor, nn

from ..errors import TrainerError
from ..options import one_of, option


class Output(NamedTuple):
    loss: Tensor
    projections: Tensor  # of the first view; their spread shows a collapse


@dataclass
class MethodSettings:
    """What every method has."""

    name: str = MISSING  # under which it was chosen
    views: str = option(
        "two", "two drawn alike, one otherwise, or with small crops", one_of("two", "asymmetric", "multicrop")
    )


class Method(nn.Module, ABC):
    """Holds `encoder`, which is what the penalty sees and what is evaluated, and the heads around it.

    `ema` is None or the trainer's average of the encoder (`trainer.ema`), of which a method need not know.
    """

    Settings: type[Any] = MethodSettings  # the options of the method with their defaults; a subclass of this one
    encoder: nn.Module
    ema: nn.Module | None
    progress: float = 0.0  # share of the run that is done; the trainer sets it before each forward pass

    def __init__(self, encoder: nn.Module, settings: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_module("ema", None)

    @abstractmethod
    def forward(self, views: list[Tensor]) -> Output:
        """The first two views are large and of one size; what follows them is small (`views: multicrop`)."""

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

    def constant_rate_modules(self) -> list[nn.Module]:
        """Modules whose learning rate neither warms up nor falls."""
        return []

    def before_step(self, step: int, steps: int) -> None:
        """Called when the gradients of optimizer step number `step` of `steps`, counted from 0, are complete."""

    def after_step(self, step: int, steps: int) -> None:
        """Called after that step; moves what is not trained: teachers, queues, centers."""
