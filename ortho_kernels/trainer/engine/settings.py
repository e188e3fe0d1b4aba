"""On what a run computes and how it is kept: devices, processes, precision, checkpoints."""

from dataclasses import dataclass
from typing import Any

import torch

from ..distributed.joining import Place
from ..errors import TrainerError
from ..options import at_least, between, more_than, one_of, option


@dataclass
class TrainerSettings:
    batch_size: int = option(256, "images of a batch, over all processes", at_least(2))
    accumulate: int = option(1, "batches of an optimizer step", at_least(1))
    max_epochs: int = option(200, "passes over the data", at_least(1))
    max_steps: int | None = option(None, "optimizer steps; takes the place of max_epochs", at_least(1))
    clip: float | None = option(None, "largest norm of all gradients, the penalty's included", more_than(0))
    ema: float | None = option(None, "momentum of an average of the encoder's weights over the steps", between(0, 1))
    stop_on_collapse: bool = option(False, "a run that has collapsed stops, and is evaluated as it is")
    accelerator: str = option("auto", "device to train on", one_of("auto", "cpu", "gpu", "cuda", "mps"))
    strategy: str = option("single", "one process, copies, or sharded weights", one_of("single", "ddp", "fsdp2"))
    devices: int | None = option(None, "processes; by default one for each GPU, or two without one", at_least(1))
    nodes: int = option(1, "machines; several are started by torchrun or SLURM", at_least(1))
    sync_batchnorm: bool = option(True, "batch statistics over all processes, as one process would take them")
    timeout: float = option(600.0, "seconds that a process waits for the others", more_than(0))
    precision: str = option("32-true", "Lightning's precision", one_of("32-true", "64-true", "bf16-mixed", "16-mixed"))
    channels_last: bool = option(True, "convolutions compute with channels last in memory")
    compile: str | None = option(None, "torch.compile backend of the method's forward and backward, such as inductor")
    threads: int | None = option(None, "CPU threads of a process; by default the cores shared out", at_least(1))
    workers: int | None = option(None, "processes that decode pictures; by default all cores but one", between(0, 1000))
    log_every: int = option(10, "steps from one row of metrics to the next", at_least(1))
    checkpoint_every: int = option(500, "steps from one checkpoint to the next", at_least(1))
    keep_checkpoints: int = option(2, "number of checkpoints that are kept", at_least(1))
    tensorboard: bool = option(True, "log to TensorBoard as well")
    wandb: str | None = option(None, "project of Weights & Biases to log to as well")


TRAINERS: dict[str, TrainerSettings] = {
    "default": TrainerSettings(),
    "cpu": TrainerSettings(accelerator="cpu"),
    "gpu": TrainerSettings(accelerator="gpu"),
    "ddp": TrainerSettings(strategy="ddp"),
    "fsdp2": TrainerSettings(strategy="fsdp2"),
}


def require_devices(settings: Any) -> None:
    """Raises TrainerError for what this machine or this torch can't do, before anything is written."""
    accelerator, compiler = settings.accelerator, settings.compile
    if on_gpu(settings) and not torch.cuda.is_available():
        raise TrainerError(f"trainer.accelerator={accelerator}: torch sees no GPU here; take auto or cpu.")
    if accelerator == "mps" and not torch.backends.mps.is_available():
        raise TrainerError("trainer.accelerator=mps: torch sees no Apple GPU here; take auto or cpu.")
    if settings.precision == "16-mixed" and not on_gpu(settings):
        raise TrainerError("trainer.precision=16-mixed needs a GPU: on a CPU take bf16-mixed or 32-true.")
    if settings.strategy == "single":
        for key, count in (("trainer.devices", settings.devices or 1), ("trainer.nodes", settings.nodes)):
            if count > 1:
                raise TrainerError(f"{key}={count} takes several processes: add trainer=ddp or trainer=fsdp2.")
    if compiler is not None and compiler not in torch.compiler.list_backends(exclude_tags=()):
        known = ", ".join(torch.compiler.list_backends())
        raise TrainerError(f"trainer.compile={compiler}: torch has no such compiler; it has {known}.")


def require_processes(settings: Any, place: Place) -> None:
    """Raises TrainerError where somebody else has started other processes than the options ask for."""
    devices, started = process_count(settings), f"{place.starter} starts {place.count} processes"
    if settings.strategy == "single":
        if place.count > 1:
            raise TrainerError(
                f"{started}, and each would train this run by itself: add trainer=ddp or trainer=fsdp2. "
                "(To train several runs, start each by itself, such as by srun --ntasks=1.)"
            )
    elif place.count != settings.nodes * devices:
        raise TrainerError(
            f"{started}, but trainer.nodes={settings.nodes} with trainer.devices={devices} on each are "
            f"{settings.nodes * devices}. Give the numbers that it starts. A run goes on with other numbers by "
            "resume=FOLDER: then it is the same to rounding, not to the bit."
        )
    elif place.local_rank >= devices:
        raise TrainerError(
            f"{started}, of which this machine has more than trainer.devices={devices}: start as many on each machine."
        )
    elif on_gpu(settings) and place.local_rank >= torch.cuda.device_count():
        raise TrainerError(
            f"Process {place.local_rank} of this machine sees {torch.cuda.device_count()} GPUs and takes that of its own "
            "number: let each process see all GPUs of its machine (under SLURM no --gpus-per-task and no --gpu-bind)."
        )


def on_gpu(settings: Any) -> bool:
    return settings.accelerator in ("gpu", "cuda") or (settings.accelerator == "auto" and torch.cuda.is_available())


def process_count(settings: Any) -> int:
    """Processes on this machine."""
    if settings.strategy == "single":
        return 1
    return settings.devices or (torch.cuda.device_count() if on_gpu(settings) else 2)


def group_backend(settings: Any) -> str:
    return "nccl" if on_gpu(settings) else "gloo"
