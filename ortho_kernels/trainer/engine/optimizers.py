"""Optimizers and their one schedule: learning rate scaled by the batch, warm-up, half a cosine, step by step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import MISSING
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ..errors import TrainerError
from ..options import at_least, between, more_than, one_of, option
from .lars import LARS


@dataclass
class OptimizerSettings:
    name: str
    lr: float = option(MISSING, "learning rate at 256 images a step, of all processes together", at_least(0))
    weight_decay: float = option(MISSING, "weight decay of convolutions and linear layers", at_least(0))
    warmup: float = option(MISSING, "share of the steps in which the rate rises", between(0, 1))
    scaling: str = option("linear", "how the rate grows with the images of a step", one_of("linear", "sqrt", "none"))
    final_lr: float = option(0.0, "share of the rate at which the cosine ends", between(0, 1))
    final_weight_decay: float | None = option(None, "where weight decay moves along half a cosine", at_least(0))
    norm_lr: float | None = option(None, "rate of norms and biases, scaled as lr is; lr by default", at_least(0))
    decay_norms: bool = option(False, "norms, biases, tokens and position embeddings decay too")


@dataclass
class SGDSettings(OptimizerSettings):
    name: str = "sgd"
    lr: float = 0.06
    weight_decay: float = 5e-4
    warmup: float = 0.05
    momentum: float = option(0.9, "momentum of the gradients", between(0, 1))


@dataclass
class LARSSettings(OptimizerSettings):
    """Layer-wise rates, as solo-learn sets them. What doesn't decay (norms and biases) is not adapted either."""

    name: str = "lars"
    lr: float = 0.3
    weight_decay: float = 1e-6
    warmup: float = 0.1
    momentum: float = option(0.9, "momentum of the gradients", between(0, 1))
    trust: float = option(0.02, "factor of a layer's norm of weights over norm of gradients", more_than(0))
    clip: bool = option(True, "adaptation lowers rates and never raises them")


@dataclass
class AdamWSettings(OptimizerSettings):
    name: str = "adamw"
    lr: float = 5e-4
    weight_decay: float = 0.05
    warmup: float = 0.1
    betas: list[float] = option([0.9, 0.999], "decay of the mean gradient, and of its square", at_least(0, below=1))


OPTIMIZERS: dict[str, type[Any]] = {"sgd": SGDSettings, "lars": LARSSettings, "adamw": AdamWSettings}


def build_optimizer(settings: Any, module: nn.Module, batch_size: int, constant: Sequence[nn.Module] = ()) -> Optimizer:
    """`batch_size` is the number of images that an optimizer step sees; the schedule leaves the rate of the modules
    `constant` alone."""
    factor = rate_factor(settings.scaling, batch_size)
    groups = parameter_groups(module, settings, factor, constant)
    rate = settings.lr * factor
    if settings.name == "adamw":
        if len(settings.betas) != 2:
            raise TrainerError(f"optimizer.betas takes two numbers, [0.9, 0.999]; got {list(settings.betas)}.")
        return torch.optim.AdamW(groups, lr=rate, betas=tuple(settings.betas))
    if settings.name == "lars":
        return LARS(groups, lr=rate, momentum=settings.momentum, trust=settings.trust, clip=settings.clip)
    return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum)


def rate_factor(scaling: str, batch_size: int) -> float:
    """What a rate that is given for 256 images is multiplied with."""
    return {"linear": batch_size / 256, "sqrt": math.sqrt(batch_size / 256), "none": 1.0}[scaling]


def parameter_groups(
    module: nn.Module, settings: Any, factor: float = 1.0, constant: Sequence[nn.Module] = ()
) -> list[dict[str, Any]]:
    """The trained parameters by what becomes of them. Beside the first group, empty ones are left out.

    `decays`: weights of convolutions and linear layers, and with `decay_norms` all others (norms, biases, tokens,
    position embeddings). LARS adapts the rates of these alone. `constant`: the schedule leaves the rate alone.
    """
    matrices = {id(layer.weight) for layer in module.modules() if isinstance(layer, (_ConvNd, nn.Linear))}
    at_constant_rate = {id(parameter) for part in constant for parameter in part.parameters()}
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for is_constant in (False, True):
        for is_matrix in (True, False):
            decays = is_matrix or settings.decay_norms
            decay = settings.weight_decay if decays else 0.0
            group: dict[str, Any] = {
                "params": [],
                "weight_decay": decay,
                "decays": decays,
                "constant": is_constant,
            }
            if not is_matrix and settings.norm_lr is not None:
                group["lr"] = settings.norm_lr * factor
            groups[is_constant, is_matrix] = group
    for parameter in module.parameters():
        if parameter.requires_grad:
            groups[id(parameter) in at_constant_rate, id(parameter) in matrices]["params"].append(parameter)
    first, *others = groups.values()
    return [first, *(group for group in others if group["params"])]


class Schedule(LambdaLR):
    """Learning rates along warm-up and cosine, and with them the weight decay of the groups that decay.

    All of them follow from the number of the step. So a run that is prolonged goes on with the rates of its new length.
    """

    def __init__(self, settings: Any, optimizer: Optimizer, steps: int) -> None:
        self.decay = settings.weight_decay, settings.final_weight_decay
        self.steps = steps

        def factor(step: int) -> float:
            return rate_share(settings, step, steps)

        def constant(step: int) -> float:
            return 1.0

        super().__init__(optimizer, [constant if group["constant"] else factor for group in optimizer.param_groups])

    def step(self, epoch: int | None = None) -> None:
        super().step(epoch)
        self._set_decay()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the position alone: the optimizer's rates may come from a checkpoint of a shorter run."""
        super().load_state_dict({key: value for key, value in state_dict.items() if key not in ("decay", "steps")})
        shares = [share(self.last_epoch) for share in self.lr_lambdas]
        for group, base, share in zip(self.optimizer.param_groups, self.base_lrs, shares, strict=True):
            group["lr"] = base * share
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]
        self._set_decay()

    def _set_decay(self) -> None:
        first, last = self.decay
        if last is not None:
            for group in self.optimizer.param_groups:
                if group["decays"]:
                    group["weight_decay"] = half_cosine(self.last_epoch / self.steps, first, last)


def rate_at(settings: Any, step: int, steps: int, batch_size: int) -> float:
    """The learning rate of step number `step` of `steps`, counted from 0, with `batch_size` images a step."""
    return settings.lr * rate_factor(settings.scaling, batch_size) * rate_share(settings, step, steps)


def rate_share(settings: Any, step: int, steps: int) -> float:
    """What the schedule multiplies a rate with in step number `step` of `steps`, counted from 0."""
    warmup = round(settings.warmup * steps)
    if step < warmup:
        return (step + 1) / warmup
    return half_cosine((step - warmup) / max(steps - warmup, 1), 1.0, settings.final_lr)


def half_cosine(share: float, first: float, last: float) -> float:
    """From `first` at 0 to `last` at 1, level at both ends."""
    return last + 0.5 * (first - last) * (1 + math.cos(math.pi * min(share, 1.0)))


def build_schedule(settings: Any, optimizer: Optimizer, steps: int) -> Schedule:
    return Schedule(settings, optimizer, steps)
