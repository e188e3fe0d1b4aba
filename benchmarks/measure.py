"""Correctness before speed; then interleaved timings, launches and peak memory of one set of rivals."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .rivals import Penalty

PHASES = ("forward", "backward", "both")


@dataclass
class Measurement:
    """One rival on one set of weights. Seconds a round; errors relative to float64, gradients in norm."""

    value_error: float
    gradient_error: float
    launches: int | None
    peak_extra_bytes: int
    seconds: dict[str, list[float]] = field(default_factory=lambda: {phase: [] for phase in PHASES})


Results = tuple[Tensor, Sequence[Tensor]]  # the value and the gradients


def errors(penalty: Penalty, truth: Penalty, weights: Sequence[Tensor]) -> tuple[float, float]:
    """Relative errors of the value and (the worst weight's, in norm) of the gradients."""
    value = penalty(weights)
    return relative_errors((value, torch.autograd.grad(value, weights)), true_results(truth, weights))


def true_results(truth: Penalty, weights: Sequence[Tensor]) -> Results:
    """In float64."""
    doubles = [weight.detach().double().requires_grad_() for weight in weights]
    value = truth(doubles)
    return value.detach(), torch.autograd.grad(value, doubles)


def relative_errors(results: Results, true: Results) -> tuple[float, float]:
    """As `errors` returns them."""
    (value, gradients), (true_value, true_gradients) = results, true
    worst = max(((g - t).norm() / t.norm()).item() for g, t in zip(gradients, true_gradients, strict=True))
    return abs(value.item() / true_value.item() - 1), worst


def is_launch(func: torch._ops.OpOverload) -> bool:
    """Whether an operator does work: all do but views and those that only allocate."""
    return not func.is_view and not func.name().startswith(("aten::empty", "aten::new_empty"))


class _Launches(TorchDispatchMode):
    """Counts the operators that do work."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += is_launch(func)
        return func(*args, **(kwargs or {}))


def launches(penalty: Penalty, weights: Sequence[Tensor]) -> int:
    """Operators that one forward and backward hand to the device."""
    with _Launches() as counter:
        torch.autograd.grad(penalty(weights), weights)
    return counter.count


def peak_extra_bytes(penalty: Penalty, weights: Sequence[Tensor]) -> int:
    """Resident memory at its highest during one forward and backward, beyond what was resident before (Linux)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = _status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back
    torch.autograd.grad(penalty(weights), weights)
    return max(0, _status_bytes("VmHWM") - before)


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


def interleave(
    penalties: dict[str, Penalty], weights: Sequence[Tensor], seconds: float, at_least: int = 5
) -> dict[str, dict[str, list[float]]]:
    """Rounds in each of which every rival runs once, in rotating order, for about so many seconds in all."""
    names = list(penalties)
    result: dict[str, dict[str, list[float]]] = {name: {phase: [] for phase in PHASES} for name in names}
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < at_least or (time.perf_counter() < end and rounds < 200):
        for name in names[rounds % len(names) :] + names[: rounds % len(names)]:
            start = time.perf_counter()
            value = penalties[name](weights)
            middle = time.perf_counter()
            torch.autograd.grad(value, weights)
            stop = time.perf_counter()
            for phase, spent in zip(PHASES, (middle - start, stop - middle, stop - start), strict=True):
                result[name][phase].append(spent)
        rounds += 1
    return result
