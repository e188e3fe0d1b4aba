"""On what a run computes and how it is kept: devices, processes, precision, checkpoints."""

from dataclasses import dataclass
from typing import Any

import torch

STRATEGIES = ("single", "ddp", "fsdp2")


@dataclass
class TrainerSettings:
    batch_size: int = 256  # images a batch, over all processes
    accumulate: int = 1  # batches an optimizer step; batch norm takes the statistics of each of them by itself
    max_epochs: int = 200
    max_steps: int | None = None  # optimizer steps; takes the place of max_epochs
    clip: float | None = None  # the most that the norm of all gradients may be, the penalty's included
    accelerator: str = "auto"
    strategy: str = "single"  # or, on several processes: ddp (weights on each), fsdp2 (weights shared out)
    devices: int | None = None  # processes of ddp and fsdp2; one for each GPU by default, two without a GPU
    nodes: int = 1  # machines; more than one needs torchrun or SLURM
    sync_batchnorm: bool = True  # batch statistics over all processes, as one process would take them
    timeout: float = 600.0  # seconds that a process waits for the others
    precision: str = "32-true"  # Lightning's names: bf16-mixed, 16-mixed, ...
    channels_last: bool = True
    compile: str | None = None  # a backend of torch.compile for the method's forward and backward: inductor
    threads: int | None = None  # CPU threads of a process; the cores shared out by default
    workers: int | None = None  # processes that decode pictures; all cores but one where pictures need decoding
    log_every: int = 10  # steps
    checkpoint_every: int = 500  # steps
    keep_checkpoints: int = 2
    tensorboard: bool = True
    wandb: str | None = None  # a project of Weights & Biases to log to as well


TRAINERS: dict[str, TrainerSettings] = {
    "default": TrainerSettings(),
    "cpu": TrainerSettings(accelerator="cpu"),
    "gpu": TrainerSettings(accelerator="gpu"),
    "ddp": TrainerSettings(strategy="ddp"),
    "fsdp2": TrainerSettings(strategy="fsdp2"),
}


def on_gpu(settings: Any) -> bool:
    return settings.accelerator in ("gpu", "cuda") or (settings.accelerator == "auto" and torch.cuda.is_available())


def process_count(settings: Any) -> int:
    """Processes on this machine."""
    if settings.strategy == "single":
        return 1
    return settings.devices or (torch.cuda.device_count() if on_gpu(settings) else 2)


def group_backend(settings: Any) -> str:
    return "nccl" if on_gpu(settings) else "gloo"
