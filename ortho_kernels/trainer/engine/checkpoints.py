"""Checkpoints: written whole or not at all, the last few kept, read back without running any code that is in them."""

import os
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, Trainer

from ..data.preprocess import Preprocess
from ..distributed.processes import Ranks
from ..errors import TrainerError
from ..host_copies import HostCopy
from .finite_steps import first_non_finite_weight
from .stop_request import StopRequest


class AtomicFiles(CheckpointIO):
    """Writes beside the target, then renames: a crash or a full disk leaves the previous checkpoint as it was."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        partial = target.with_suffix(".partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(partial, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            partial.unlink(missing_ok=True)
            raise TrainerError(
                f"Cannot write the checkpoint {target}: {error}. Earlier checkpoints are kept; "
                "make room (or the folder writable), then continue with resume=auto."
            ) from None

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainerError(
            f"The checkpoint {path} cannot be read ({reason}): it is truncated or no checkpoint. "
            "Remove it to resume from the one before it, or start anew without resume."
        ) from None


def checkpoint_files(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest first."""
    return sorted(folder.glob("step-*.ckpt"), reverse=True)


def step_of(checkpoint: Path) -> int:
    """The number of optimizer steps that a checkpoint holds, by its name."""
    return int(checkpoint.stem.removeprefix("step-"))


class Checkpoints(Callback):
    """Saves every so many steps, at the last one, and when the process is asked to stop (SIGTERM, Ctrl-C) or the run
    stops early."""

    def __init__(self, folder: Path, every: int, keep: int, configuration: dict[str, Any], ranks: Ranks) -> None:
        self.folder = folder
        self.every = every
        self.keep = keep
        self.ranks = ranks
        self.configuration = configuration
        self.stop = StopRequest()
        self.last_vote: HostCopy | None = None

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        self.stop.take_over()

    def on_save_checkpoint(self, trainer: Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["configuration"] = self.configuration
        checkpoint["preprocess"] = asdict(Preprocess.of(module.views))

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, index: int) -> None:
        if (index + 1) % trainer.accumulate_grad_batches:
            return  # in the middle of an optimizer step
        step = trainer.global_step
        stop = self._is_to_stop()
        if step % self.every == 0 or step == module.steps or stop or trainer.should_stop:
            self._save(trainer, module, step)
        if stop and step < module.steps:
            raise TrainerError(
                f"Stopped by {self.stop.name} at step {step}, which is saved: continue with resume=auto."
            )

    def on_train_end(self, trainer: Trainer, module: Any) -> None:
        self.stop.give_back()

    def on_exception(self, trainer: Trainer, module: Any, exception: BaseException) -> None:
        self.stop.give_back()

    def _is_to_stop(self) -> bool:
        """Whether a signal has come; with several processes, whether it had come to one of them a step ago."""
        if self.ranks.count == 1:
            return bool(self.stop)
        before, self.last_vote = self.last_vote, HostCopy(self.ranks.count_of(bool(self.stop)))
        return before is not None and before.values() > 0

    def _save(self, trainer: Trainer, module: Any, step: int) -> None:
        module.stop_if_not_finite(wait=True)
        if name := first_non_finite_weight(module.method):
            raise TrainerError(
                f"{name} is not finite after step {step}, which is not saved: the last checkpoint is kept. "
                "Lower optimizer.lr (or penalty.gamma) or lengthen optimizer.warmup."
            )
        trainer.save_checkpoint(self.folder / f"step-{step:09d}.ckpt")
        if self.ranks.rank == 0:
            for old in checkpoint_files(self.folder)[self.keep :]:
                old.unlink(missing_ok=True)
