"""The host's time of a penalty's step, part by part: `python -m benchmarks.host_time`, with or without a GPU.

On a CPU the weights are a model's with 1/64 of its channels, so that what is timed is the way there and not the arithmetic.
On a GPU a few calls at a time go into an empty queue, and nothing waits for it.

views               the weights looked up, which must look as they did before
forward, backward   the operators alone, launches included
... of one          the same for one weight: what a call and its launches cost beside the weights
gradients           new tensors for the gradients
autograd alone      a function of as many weights that computes nothing: torch's own part
autograd            a forward and backward by `torch.autograd.grad`
accumulate          `OrthogonalityPenalty.accumulate_gradients`
... after others    the same, one call after other work has filled the caches: as in a training step
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import arguments as accepted
from benchmarks import model_shapes
from benchmarks.gpu.json_lines import show
from benchmarks.gpu.machine import NO_GPU, facts, reason_against_backend
from ortho_kernels import OrthogonalityPenalty, ops, soft_orthogonality, srip, use_backend
from ortho_kernels.backends.registry import BACKENDS, choose
from ortho_kernels.weight_views import weight_views

CHANNELS = 64  # of which one is left on a CPU
BURST = 10  # calls that go into an empty queue: it holds about a thousand launches
OTHER_BYTES = 64 << 20  # of other work between two calls
PENALTIES = {"so": soft_orthogonality, "srip": srip}

Step = Callable[[], object]


def encoder_of(model: str, device: str) -> nn.Module:
    """A module with one layer for each weight of the model."""
    layers = nn.ModuleList()
    for rows, columns, *kernel in model_shapes.MODELS[model]():
        if device == "cpu":
            rows, columns = max(1, rows // CHANNELS), max(1, columns // CHANNELS)
        layers.append(nn.Conv2d(columns, rows, kernel, bias=False) if kernel else nn.Linear(columns, rows, bias=False))
    return layers.to(device)


class Nothing(torch.autograd.Function):
    """Gives each of its inputs the gradient that it was handed."""

    @staticmethod
    def forward(ctx: Any, gradients: Sequence[Tensor], *weights: Tensor) -> Tensor:
        ctx.gradients = gradients
        ctx.save_for_backward(*weights)
        return weights[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple:
        assert len(ctx.saved_tensors) == len(ctx.gradients)
        return None, *ctx.gradients


OPERATORS = {"so": "soft_orthogonality", "srip": "srip"}


def operators(kind: str, weights: list[Tensor], backend: str) -> tuple[Step, Step]:
    """The forward and the backward operator over these weights, called as `ops.py` calls them."""
    views, operate, name = weight_views(weights, 1), BACKENDS[backend].operate, OPERATORS[kind]
    layout = (weights, views.groups, views.sides("small"))
    start = torch.randn(sum(views.orders("small")), device=views.device)
    constants = (1.0, 1.0) if kind == "so" else (start, 2, True)

    def forward() -> tuple[Tensor, Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            return operate(name, views, *layout, *constants, True)

    values, kept = forward()
    factors, gradients = torch.ones_like(values), ops.new_gradients(weights, views=views)
    given = (factors, *layout, kept, 0 if kind == "so" else 2, gradients, [True] * len(weights), False)

    def backward() -> None:
        with torch._C._AutoDispatchBelowAutograd():
            operate(f"{name}_backward", views, *given)

    return forward, backward


def parts(kind: str, encoder: nn.Module, backend: str) -> dict[str, Step]:
    """What is timed, by name."""
    weights = list(encoder.parameters())
    views, penalty = weight_views(weights, 1), OrthogonalityPenalty(encoder, kind)
    gradients = ops.new_gradients(weights, views=views)
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    forward, backward = operators(kind, weights, backend)
    forward_of_one, backward_of_one = operators(kind, weights[:1], backend)
    return {
        "views": lambda: weight_views(weights, 1),
        "forward": forward,
        "backward": backward,
        "forward of one": forward_of_one,
        "backward of one": backward_of_one,
        "gradients": lambda: ops.new_gradients(weights, views=views),
        "autograd alone": lambda: torch.autograd.grad(Nothing.apply(gradients, *weights), weights),
        "autograd": lambda: torch.autograd.grad(PENALTIES[kind](weights), weights),
        "accumulate": penalty.accumulate_gradients,
    }


def timed(steps: dict[str, Step], seconds: float, prepare: Step, calls: int) -> dict[str, list[float]]:
    """Seconds of each call: so many calls of each step in turn, and before them `prepare`."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        for _ in range(3):
            step()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, step in steps.items():
            prepare()
            for _ in range(calls):
                began = time.perf_counter()
                step()
                times[name].append(time.perf_counter() - began)
    return times


def measured(kind: str, model: str, device: str, backend: str, seconds: float) -> dict[str, list[float]]:
    """Seconds of each part's calls."""
    other = torch.zeros(OTHER_BYTES // 4)

    def drain() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def work_otherwise() -> None:
        drain()
        other.add_(1)

    with use_backend(backend):
        steps = parts(kind, encoder_of(model, device), backend)
        times = timed(steps, 0.6 * seconds, drain, BURST)
        whole = {f"{name} after others": steps[name] for name in ("autograd", "accumulate")}
        return times | timed(whole, 0.4 * seconds, work_otherwise, 1)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.host_time", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", choices=tuple(model_shapes.MODELS), default="resnet50")
    parser.add_argument("--penalty", nargs="+", choices=tuple(PENALTIES), default=list(PENALTIES))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=accepted.seconds, default=4.0, help="for one penalty by one backend")
    parser.add_argument(
        "--out", type=accepted.output_file, help="a file to which each finding is added as a line of JSON"
    )
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print(f"Nothing was timed: {NO_GPU}.", file=sys.stderr)
        return 1
    show({"facts": facts()}, options.out)
    backends = ("cuda", "triton") if options.device == "cuda" else (choose("cpu"),)
    for kind in options.penalty:
        for backend in backends:
            case = f"{kind} {options.model} {backend} host"
            if (reason := reason_against_backend(backend, options.device)) is not None:
                show({"case": case, "error": reason}, options.out)
                continue
            for name, seconds in measured(kind, options.model, options.device, backend, options.seconds).items():
                value, least = 1e6 * median(seconds), 1e6 * min(seconds)
                show(
                    {"case": f"{case} {name}", "value": round(value, 1), "unit": "us", "min": round(least, 1)},
                    options.out,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
