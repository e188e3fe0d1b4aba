"""Optimizers and their one schedule: learning rate scaled by the batch, warm-up, cosine to zero, step by step."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from .errors import TrainerError
from .lars import LARS

SCALINGS = ("linear", "sqrt", "none")


@dataclass
class OptimizerSettings:
    name: str
    lr: float  # for a batch of 256 images, all processes and accumulated batches together ...
    weight_decay: float
    warmup: float  # share of the steps
    scaling: str = "linear"  # ... and scaled to another: linear | sqrt | none
    final_weight_decay: float | None = None  # decay changes to this along half a cosine; constant if not given


@dataclass
class SGDSettings(OptimizerSettings):
    name: str = "sgd"
    lr: float = 0.06
    weight_decay: float = 5e-4
    warmup: float = 0.05
    momentum: float = 0.9


@dataclass
class LARSSettings(OptimizerSettings):
    """Layer-wise rates, as solo-learn sets them. Norms and biases neither decay nor are adapted."""

    name: str = "lars"
    lr: float = 0.3
    weight_decay: float = 1e-6
    warmup: float = 0.1
    momentum: float = 0.9
    trust: float = 0.02
    clip: bool = True  # adaptation lowers rates, and never raises them


@dataclass
class AdamWSettings(OptimizerSettings):
    name: str = "adamw"
    lr: float = 5e-4
    weight_decay: float = 0.05
    warmup: float = 0.1


OPTIMIZERS: dict[str, type[Any]] = {"sgd": SGDSettings, "lars": LARSSettings, "adamw": AdamWSettings}


def build_optimizer(settings: Any, module: nn.Module, batch_size: int) -> Optimizer:
    """`batch_size` is the number of images that an optimizer step sees."""
    groups = parameter_groups(module, settings.weight_decay)
    rate = settings.lr * rate_factor(settings.scaling, batch_size)
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=rate)
    if settings.name == "lars":
        groups[1]["adapt"] = False
        return LARS(groups, lr=rate, momentum=settings.momentum, trust=settings.trust, clip=settings.clip)
    return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum)


def rate_factor(scaling: str, batch_size: int) -> float:
    """What a rate that is given for 256 images is multiplied with."""
    if scaling not in SCALINGS:
        raise TrainerError(f"optimizer.scaling must be one of {', '.join(SCALINGS)}; got {scaling}.")
    return {"linear": batch_size / 256, "sqrt": math.sqrt(batch_size / 256), "none": 1.0}[scaling]


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The weights of convolutions and linear layers decay; norms, biases, tokens and position embeddings do not."""
    matrices = {id(layer.weight) for layer in module.modules() if isinstance(layer, (_ConvNd, nn.Linear))}
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if id(p) in matrices], "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) not in matrices], "weight_decay": 0.0},
    ]


class Schedule(LambdaLR):
    """Learning rates along warm-up and cosine, and with them the weight decay of the group that decays."""

    def __init__(self, settings: Any, optimizer: Optimizer, steps: int) -> None:
        self.decay = settings.weight_decay, settings.final_weight_decay
        self.steps = steps
        warmup = round(settings.warmup * steps)

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return half_cosine((step - warmup) / max(steps - warmup, 1), 1.0, 0.0)

        super().__init__(optimizer, factor)

    def step(self, epoch: int | None = None) -> None:
        super().step(epoch)
        first, last = self.decay
        if last is not None:
            self.optimizer.param_groups[0]["weight_decay"] = half_cosine(self.last_epoch / self.steps, first, last)


def half_cosine(share: float, first: float, last: float) -> float:
    """From `first` at 0 to `last` at 1, level at both ends."""
    return last + 0.5 * (first - last) * (1 + math.cos(math.pi * min(share, 1.0)))


def build_schedule(settings: Any, optimizer: Optimizer, steps: int) -> Schedule:
    return Schedule(settings, optimizer, steps)
