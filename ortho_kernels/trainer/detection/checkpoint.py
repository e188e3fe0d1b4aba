"""The checkpoint of a training that may be cut off."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from ..engine.checkpoints import AtomicFiles, read_checkpoint
from ..errors import TrainerError


@dataclass
class Checkpoint:
    path: Path
    every: int  # steps
    resume: bool  # whether a training goes on from the file, if there is one
    asked: dict[str, Any]  # all that decides the result
    began: float = field(default_factory=time.monotonic)
    earlier_seconds: float = 0.0  # of the work that the checkpoint holds

    @property
    def seconds(self) -> float:
        """Of the work so far, also before it was cut off."""
        return self.earlier_seconds + time.monotonic() - self.began

    def save(self, step: int, detector: nn.Module, optimizer: Optimizer, losses: Tensor) -> None:
        """Whole or not at all."""
        states = {"detector": detector.state_dict(), "optimizer": optimizer.state_dict()}
        content = {"asked": self.asked, "step": step, "losses": losses, "seconds": self.seconds, **states}
        AtomicFiles().save_checkpoint(content, self.path)

    def restore(self, detector: nn.Module, optimizer: Optimizer, losses: Tensor) -> int:
        """Fills all of them, and returns the number of steps that they have behind them.

        Raises TrainerError for a checkpoint of other options, and for a file that can't be read.
        """
        if not (self.resume and self.path.is_file()):
            return 0
        content = read_checkpoint(self.path)
        if differing := [key for key, value in self.asked.items() if content.get("asked", {}).get(key) != value]:
            raise TrainerError(
                f"{self.path} is of another detection: it differs in {', '.join(differing)}. Remove it, or leave resume out."
            )
        detector.load_state_dict(content["detector"])
        optimizer.load_state_dict(content["optimizer"])
        losses.copy_(content["losses"])
        self.earlier_seconds = content["seconds"]
        return content["step"]
