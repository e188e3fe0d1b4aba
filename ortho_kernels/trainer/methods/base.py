"""What a method is to the trainer: a module that turns two views into a loss."""

from typing import Any, NamedTuple

from torch import Tensor, nn


class Output(NamedTuple):
    loss: Tensor
    projections: Tensor  # of the first view; how far they spread tells whether the method has collapsed


class Method(nn.Module):
    """Holds `encoder`, which is what the penalty sees and what is evaluated, and the heads and criterion around it."""

    Settings: type[Any]  # a dataclass: the options of the method with their defaults
    encoder: nn.Module

    def __init__(self, encoder: nn.Module, settings: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, first: Tensor, second: Tensor) -> Output:
        raise NotImplementedError

    def after_step(self, step: int, steps: int) -> None:
        """Called after optimizer step number `step` of `steps`, counted from 0; moves a teacher, if there is one."""
