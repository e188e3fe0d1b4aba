"""Optimizers and their one schedule: learning rate scaled by the batch, warm-up, cosine to zero, step by step."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from lightly.utils.lars import LARS
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


@dataclass
class SGDSettings:
    name: str = "sgd"
    lr: float = 0.06  # for a batch of 256; scaled linearly to the batch at hand
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.05  # share of the steps


@dataclass
class LARSSettings:
    """Layer-wise rates for large batches. Weights without decay (norms, biases) are not adapted."""

    name: str = "lars"
    lr: float = 0.3
    momentum: float = 0.9
    weight_decay: float = 1e-6
    warmup: float = 0.1


@dataclass
class AdamWSettings:
    name: str = "adamw"
    lr: float = 5e-4
    weight_decay: float = 0.05
    warmup: float = 0.1


OPTIMIZERS: dict[str, type[Any]] = {"sgd": SGDSettings, "lars": LARSSettings, "adamw": AdamWSettings}


def build_optimizer(settings: Any, module: nn.Module, batch_size: int) -> Optimizer:
    groups = parameter_groups(module, settings.weight_decay)
    rate = settings.lr * batch_size / 256
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=rate)
    if settings.name == "lars":
        return LARS(groups, lr=rate, momentum=settings.momentum)
    return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The weights of convolutions and linear layers decay; norms, biases, tokens and position embeddings do not."""
    matrices = {id(layer.weight) for layer in module.modules() if isinstance(layer, (_ConvNd, nn.Linear))}
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if id(p) in matrices], "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) not in matrices], "weight_decay": 0.0},
    ]


def build_schedule(settings: Any, optimizer: Optimizer, steps: int) -> LambdaLR:
    warmup = round(settings.warmup * steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))

    return LambdaLR(optimizer, factor)
