"""Gammas that change over training: functions of the number of calls in training mode."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..weight_checks import is_count, is_number
from .words import shown


class Schedule:
    """A gamma as a function of the step, which is the number of calls in training mode before.

    `OrthogonalityPenalty` counts the calls, and a checkpoint keeps the count. A subclass defines `at` by tensor operations:
    then nothing waits for the device, and torch.compile compiles once.
    """

    def at(self, step: Tensor) -> Tensor:
        """gamma at a step: a tensor without dimensions, and so is the result, of the same dtype and device."""
        raise NotImplementedError(f"{type(self).__name__} must define at(step), which gives gamma at a step")


@dataclass(frozen=True)
class CosineSchedule(Schedule):
    """From `start` to `end` along half a cosine in so many steps; `end` from then on.

    `end + (start - end) (1 + cos(pi t / steps)) / 2` at step t.

    Raises:
        ValueError: where start or end is no finite number, or steps no positive int.
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        _check_number("CosineSchedule", "start", self.start)
        _check_number("CosineSchedule", "end", self.end)
        if not is_count(self.steps):
            raise ValueError(f"CosineSchedule: steps must be a positive int; got {self.steps!r}")

    def at(self, step: Tensor) -> Tensor:
        done = (step / self.steps).clamp(max=1.0)
        return self.end + (self.start - self.end) * 0.5 * (1 + torch.cos(math.pi * done))


@dataclass(frozen=True)
class StepSchedule(Schedule):
    """gamma times a factor that changes at certain steps.

    Args:
        gamma: what counts before the first of them.
        factors: the factor from each step on: `{1000: 0.1, 2000: 0.01}`. Factors are of `gamma`, not of each other.

    Raises:
        TypeError: where `factors` is no mapping.
        ValueError: where gamma or a factor is no finite number, or a step no positive int.
    """

    gamma: float
    factors: Mapping[int, float] = field(hash=False)

    def __post_init__(self) -> None:
        _check_number("StepSchedule", "gamma", self.gamma)
        if not isinstance(self.factors, Mapping):
            raise TypeError(f"StepSchedule: factors must be a dict of factors by step; got {shown(self.factors)}")
        for step, factor in self.factors.items():
            if not is_count(step):
                raise ValueError(f"StepSchedule: a step must be a positive int; got {step!r}")
            _check_number("StepSchedule", f"the factor from step {step} on", factor)
        object.__setattr__(self, "factors", dict(sorted(self.factors.items())))

    @classmethod
    def bansal(cls, steps_per_epoch: int, gamma: float = 1e-2, *, imagenet: bool = False) -> StepSchedule:
        """What the released code of Bansal et al. (NeurIPS 2018, arXiv 1810.09102) does.

        The factor is 1e-3 after 20 epochs, 1e-4 after 50, 1e-6 after 70, and 0 after 120. On ImageNet the first change
        comes after 30 epochs. Source: `adjust_ortho_decay_rate` of github.com/VITA-Group/Orthogonality-in-CNNs at commit
        99897ee8f2469f83b743fb97922d6ce830e68568: `Wide-Resnet/train_n.py`, line 325; `SVHN/train.py`, line 216;
        `Imagenet/resnet/train_n.py`, line 336. The default of gamma is the first two's; the third has 1e-6.
        """
        if not is_count(steps_per_epoch):
            raise ValueError(f"steps_per_epoch must be a positive int; got {steps_per_epoch!r}")
        factors = {30 if imagenet else 20: 1e-3, 50: 1e-4, 70: 1e-6, 120: 0.0}
        return cls(gamma, {epoch * steps_per_epoch: factor for epoch, factor in factors.items()})

    def at(self, step: Tensor) -> Tensor:
        gamma = torch.full_like(step, self.gamma)
        for first, factor in self.factors.items():
            gamma = torch.where(step >= first, self.gamma * factor, gamma)
        return gamma


def _check_number(schedule: str, name: str, given: Any) -> None:
    if not is_number(given):
        raise ValueError(f"{schedule}: {name} must be a finite number; got {given!r}")
