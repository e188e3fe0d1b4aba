"""Lightning's objects for the devices, the processes and the precision that a run asks for."""

import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ..distributed.processes import Ranks
from ..errors import TrainerError
from .checkpoints import AtomicFiles
from .settings import group_backend, process_count


def build_trainer(
    settings: Any, ranks: Ranks, folder: Path, loggers: Sequence[Logger], callbacks: Sequence[Callback]
) -> Trainer:
    """Lightning's trainer. The whole run is one of its epochs, over one stream of batches: a resume is the same in any
    place of it."""
    try:
        trainer = Trainer(
            accelerator=settings.accelerator,
            devices=process_count(settings),
            num_nodes=settings.nodes,
            strategy=_strategy(settings, ranks),
            precision=settings.precision,
            max_epochs=1,
            accumulate_grad_batches=settings.accumulate,
            gradient_clip_val=settings.clip,  # after on_before_optimizer_step, which adds the penalty's gradient
            logger=list(loggers),
            callbacks=list(callbacks),
            plugins=[AtomicFiles(), RunningProcesses(ranks, process_count(settings))],
            default_root_dir=folder,
            use_distributed_sampler=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (ValueError, MisconfigurationException) as error:  # a device or a precision that is not to be had here
        raise TrainerError(f"trainer: {error}") from None
    # Before each step Lightning waits for all devices to hear of a SIGTERM, which `Checkpoints` takes care of.
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
    return trainer


def _strategy(settings: Any, ranks: Ranks) -> Any:
    timeout = timedelta(seconds=settings.timeout)
    if settings.strategy == "ddp":
        return DDPStrategy(process_group_backend=group_backend(settings), timeout=timeout)
    if settings.strategy == "fsdp2":
        return FSDP2Strategy(
            data_parallel_size=ranks.count,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,  # one whole file, which one process can read
            process_group_backend=group_backend(settings),
            timeout=timeout,
        )
    return "auto"


class RunningProcesses(ClusterEnvironment):
    """The processes are there already, whoever has started them. Left to itself, Lightning would look for SLURM, and under
    it take SIGUSR1 and submit jobs again."""

    creates_processes_externally = True
    main_address, main_port = "", 0  # the group is there too

    def __init__(self, ranks: Ranks, devices: int) -> None:
        super().__init__()
        self.ranks = ranks
        self.devices = devices

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.ranks.count

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return self.ranks.rank

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return int(os.environ["LOCAL_RANK"]) if self.ranks.count > 1 else 0

    def node_rank(self) -> int:
        return self.ranks.rank // self.devices


class FSDP2Strategy(ModelParallelStrategy):
    """Resumes also where a parameter had no optimizer state yet: prototypes before their first step.

    torch takes that for an error when it is strict; else it gives the parameter a state that has seen a step. Weights
    have to be there all the same.
    """

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        module, model = self.lightning_module, self.model
        assert module is not None
        assert model is not None
        saved_names = torch.load(checkpoint_path, map_location="cpu", mmap=True, weights_only=True)["state_dict"].keys()
        if differing := saved_names ^ module.state_dict().keys():
            raise TrainerError(
                f"{checkpoint_path} is of another network; it differs in {', '.join(sorted(differing))}."
            )
        module.strict_loading = False
        checkpoint = super().load_checkpoint(checkpoint_path, weights_only)
        module.strict_loading = True
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            for number, parameter in enumerate(model.parameters()):
                if number not in saved["state"]:
                    optimizer.state.pop(parameter, None)
        return checkpoint
