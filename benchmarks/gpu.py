"""Times on a GPU: `python benchmarks/gpu.py --model resnet50`. One forward and backward over all weights of a model.

Timed by CUDA events with L2 emptied before each step, all contestants (see `gpu_rivals.py`) in one interleaved series, after
their numbers were checked. Writes a JSON file that names the card.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

if __package__ in (None, ""):  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from benchmarks import gpu_rivals, measure, model_shapes
from benchmarks.rivals import rival, truth
from benchmarks.weight_sets import weights_of
from ortho_kernels import __version__, use_backend
from ortho_kernels.backends.choose import reason_against

PENALTIES = ("so", "srip")
DTYPES = ("float32", "bfloat16", "float16")
FOLDER = Path(__file__).parent / "results"
# What ours must reach before it is timed: errors relative to float64, of the value and of the worst weight's gradient.
VALUE_ERROR = 1e-5
GRADIENT_ERROR = {"float32": 1e-5, "bfloat16": 4e-3, "float16": 5e-4}


@dataclass
class Contestant:
    """A contestant's figures over one set of weights. Seconds a step: on the GPU, and until the host has handed it over."""

    name: str
    launches: int
    peak_extra_bytes: int
    gpu_seconds: list[float] = field(default_factory=list)
    host_seconds: list[float] = field(default_factory=list)


@dataclass
class Case:
    """One penalty over one model's weights."""

    penalty: str
    model: str
    dtype: str
    contestants: list[Contestant]
    left_out: dict[str, str]  # and why

    def record(self) -> dict:
        """For the JSON file; times in milliseconds."""

        def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
            return {"min": 1e3 * min(seconds), "median": 1e3 * median(seconds)}

        return {
            "penalty": self.penalty,
            "model": self.model,
            "dtype": self.dtype,
            "left_out": self.left_out,
            "contestants": {
                each.name: {
                    "gpu_ms": milliseconds(each.gpu_seconds),
                    "host_ms": milliseconds(each.host_seconds),
                    "rounds": len(each.gpu_seconds),
                    "launches": each.launches,
                    "peak_extra_mib": each.peak_extra_bytes / 2**20,
                }
                for each in self.contestants
            },
        }

    def table(self) -> str:
        ours = min((median(c.gpu_seconds) for c in self.contestants if c.name in gpu_rivals.OURS), default=None)
        lines = [
            f"{self.penalty.upper()} over {self.model}, {self.dtype}",
            f"  {'':11}{'median ms':>10}{'min ms':>9}{'x ours':>8}{'host ms':>9}{'launches':>10}{'extra MiB':>11}",
        ]
        for each in self.contestants:
            ratio = f"{median(each.gpu_seconds) / ours:8.2f}" if ours else f"{'-':>8}"
            lines.append(
                f"  {each.name:11}{1e3 * median(each.gpu_seconds):10.3f}{1e3 * min(each.gpu_seconds):9.3f}{ratio}"
                f"{1e3 * median(each.host_seconds):9.3f}{each.launches:10}{each.peak_extra_bytes / 2**20:11.1f}"
            )
        lines += [f"  {name:11}left out: {reason}" for name, reason in self.left_out.items()]
        return "\n".join(lines)


def run(penalty: str, model: str, dtype: str, seconds: float) -> Case:
    """Checks, counts and times all contestants on the current GPU."""
    weights = weights_of(model, "cuda", getattr(torch, dtype))
    names, left_out = list(gpu_rivals.RIVALS), {}
    for name in gpu_rivals.OURS:
        reason = reason_against(name, "cuda")
        if reason is None:
            check(name, penalty, weights, dtype)
            names.append(name)
        else:
            left_out[name] = reason
    steps = {}
    for name in names:
        try:
            steps[name] = gpu_rivals.step(name, penalty, weights)
            steps[name]()
        except torch.OutOfMemoryError:
            left_out[name] = "out of memory"
            steps.pop(name, None)
            torch.cuda.empty_cache()
    contestants = {name: Contestant(name, count_launches(step), peak_extra_bytes(step)) for name, step in steps.items()}
    interleave(steps, contestants, seconds)
    return Case(penalty, model, dtype, list(contestants.values()), left_out)


def check(backend: str, penalty: str, weights: Sequence[Tensor], dtype: str) -> None:
    """Raises where our numbers are wrong: such times are worth nothing."""
    with use_backend(backend):
        value_error, gradient_error = measure.errors(rival("ours", penalty), truth("ours", penalty, weights), weights)
    for what, error, limit in (
        ("values", value_error, VALUE_ERROR),
        ("gradients", gradient_error, GRADIENT_ERROR[dtype]),
    ):
        if not error <= limit:
            raise SystemExit(
                f"{backend} is wrong, so it is not timed: {penalty} {what} off by {error:.1e}, at most {limit:.0e}"
            )


def count_launches(step: gpu_rivals.Step) -> int:
    """Kernels that a step starts on the GPU; copies and fills are none."""
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as trace:
        step()
        torch.cuda.synchronize()
    names = [event.name for event in trace.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return sum(not name.startswith(("Memset", "Memcpy")) for name in names)


def peak_extra_bytes(step: gpu_rivals.Step) -> int:
    """What a step allocates beyond what was there before, at its highest."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def interleave(steps: dict[str, gpu_rivals.Step], results: dict[str, Contestant], seconds: float) -> None:
    """Rounds in each of which every contestant runs once, in rotating order, for about so many seconds in all."""
    flush = torch.empty(2 * torch.cuda.get_device_properties().L2_cache_size, dtype=torch.int8, device="cuda")
    names = list(steps)
    end, rounds = time.perf_counter() + seconds, 0
    while rounds < 10 or (time.perf_counter() < end and rounds < 1000):
        for name in names[rounds % len(names) :] + names[: rounds % len(names)]:
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            flush.zero_()
            start.record()
            began = time.perf_counter()
            steps[name]()
            results[name].host_seconds.append(time.perf_counter() - began)
            stop.record()
            torch.cuda.synchronize()
            results[name].gpu_seconds.append(1e-3 * start.elapsed_time(stop))
        rounds += 1


def machine() -> dict:
    """The card, and what drives it."""
    card = torch.cuda.get_device_properties()
    return {
        "card": card.name,
        "compute_capability": f"{card.major}.{card.minor}",
        "multiprocessors": card.multi_processor_count,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "python": platform.python_version(),
        "ortho_kernels": __version__,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "date": time.strftime("%Y-%m-%d"),
    }


def write(path: Path, about: dict, cases: Sequence[Case]) -> Path:
    """The results as JSON, written whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text(json.dumps({**about, "cases": [case.record() for case in cases]}, indent=1) + "\n")
    os.replace(unfinished, path)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gpu.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=tuple(model_shapes.MODELS), default=["resnet50"])
    parser.add_argument("--penalty", nargs="+", choices=PENALTIES, default=list(PENALTIES))
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=["float32"])
    parser.add_argument("--seconds", type=float, default=10.0, help="for the interleaved rounds of one case")
    parser.add_argument("--out", type=Path, default=FOLDER / "gpu.json")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("No GPU that torch can use is here: nothing was timed and nothing is written.", file=sys.stderr)
        return 1
    about = machine()
    print(f"{about['card']}, torch {about['torch']}")
    cases = []
    for model in options.model:
        for dtype in options.dtype:
            for penalty in options.penalty:
                cases.append(run(penalty, model, dtype, options.seconds))
                print(f"\n{cases[-1].table()}")
    print(f"\nwritten: {write(options.out, about, cases)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
