"""Times of a forward and backward over all weights of a model: `python -m benchmarks.gpu.penalties --model resnet50`.

Each contestant (see `contestants.py`) is checked against float64; then all that are right are timed in one interleaved
series (see `stopwatch.py`). What can't serve, fails or is wrong is an entry with its reason, and the rest goes on. Each case
is a line of JSON, written as soon as it is done. The exit status is 1 if one of ours that was asked for was not timed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from benchmarks import arguments as accepted
from benchmarks import measure, model_shapes
from benchmarks.arguments import DTYPES, PENALTIES
from benchmarks.rivals import truth
from benchmarks.weight_sets import weights_of

from . import contestants
from .contestants import OURS, Steps
from .json_lines import append
from .machine import NO_GPU, facts
from .stopwatch import Stopwatch, Times, describe, interleave

RESULTS = Path(__file__).parents[1] / "results" / "gpu.jsonl"
SETUP = 0.75  # of a case's seconds: what is not ready by then is left out

# Largest errors relative to float64, of the value and of the worst weight's gradient. Ours are held to what they promise;
# rivals, whose Grams and vectors have the weights' dtype, to computing the same thing at all.
VALUE_ERROR = 1e-5
GRADIENT_ERROR = {"float32": 1e-5, "bfloat16": 4e-3, "float16": 5e-4}
RIVALS_ERROR = 0.1


@dataclass
class Contestant:
    """A contestant's figures over one set of weights. `products`, which computes no penalty, has no errors."""

    name: str
    times: Times
    errors: tuple[float, float] | None  # of the value and of the gradients
    peak_extra_bytes: int | None  # of a CUDA graph, which has its memory from the capture on, None

    def record(self) -> dict:
        def microseconds(seconds: Sequence[float]) -> dict[str, float]:
            return {"min": round(1e6 * min(seconds), 2), "median": round(1e6 * median(seconds), 2)}

        return {
            "forward_us": microseconds(self.times.forward),
            "both_us": microseconds(self.times.both),
            "host_us": microseconds(self.times.host),
            "rounds": len(self.times.both),
            "value_error": self.errors and self.errors[0],
            "gradient_error": self.errors and self.errors[1],
            "peak_extra_mib": self.peak_extra_mib,
        }

    @property
    def peak_extra_mib(self) -> float | None:
        return None if self.peak_extra_bytes is None else round(self.peak_extra_bytes / 2**20, 2)


@dataclass
class Case:
    """One penalty over one model's weights."""

    penalty: str
    model: str
    dtype: str
    contestants: list[Contestant] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)  # and why

    def record(self) -> dict:
        return {
            "penalty": self.penalty,
            "model": self.model,
            "dtype": self.dtype,
            "contestants": {each.name: each.record() for each in self.contestants},
            "left_out": self.left_out,
        }

    def table(self) -> str:
        ours = min((median(each.times.both) for each in self.contestants if each.name in OURS), default=None)
        lines = [
            f"{self.penalty.upper()} over {self.model}, {self.dtype}; medians in us",
            f"  {'':13}{'forward':>10}{'both':>10}{'x ours':>8}{'host':>9}{'extra MiB':>11}{'gradient error':>16}",
        ]
        for each in sorted(self.contestants, key=lambda each: median(each.times.both)):
            forward, both, host = (1e6 * median(series) for series in vars(each.times).values())
            ratio = f"{1e-6 * both / ours:8.2f}" if ours else f"{'-':>8}"
            error = f"{each.errors[1]:16.1e}" if each.errors else f"{'-':>16}"
            extra = f"{'-':>11}" if each.peak_extra_mib is None else f"{each.peak_extra_mib:11.1f}"
            lines.append(f"  {each.name:13}{forward:10.1f}{both:10.1f}{ratio}{host:9.1f}{extra}{error}")
        lines += [f"  {name:13}left out: {reason}" for name, reason in self.left_out.items()]
        return "\n".join(lines)


def run(names: Sequence[str], penalty: str, model: str, dtype: str, seconds: float) -> Case:
    """Checks and times contestants on the current GPU, for about so many seconds with all that goes before.

    What fails is left out with its reason. Only what is under way when the time is up goes over it: a compilation, say.
    """
    began = time.perf_counter()
    case = Case(penalty, model, dtype)
    try:
        weights = weights_of(model, "cuda", getattr(torch, dtype))
        stopwatch, references = Stopwatch(), References(penalty, weights)
    except Exception as error:
        case.left_out = dict.fromkeys(names, describe(error))
        return case
    ready: dict[str, Steps] = {}
    errors, extra = {}, {}
    for name in names:
        reason = contestants.reason_against(name, penalty, weights[0].dtype)
        is_late = time.perf_counter() > began + SETUP * seconds and contestants.CAPTURED.get(name) not in ready
        if reason is None and is_late:  # to capture what is ready takes little
            reason = f"not ready within {SETUP:.0%} of {seconds:g} seconds"
        if reason is None:
            try:
                steps = contestants.steps(name, penalty, weights)
                errors[name] = references.errors(name, steps)
                extra[name] = None if name in contestants.CAPTURED else peak_extra_bytes(steps)
                reason = reason_it_is_wrong(name, errors[name], dtype)
            except ImportError as error:
                reason = f"can't be imported: {error}"
            except Exception as error:
                reason = describe(error)
        if reason is None:
            ready[name] = steps
        else:
            case.left_out[name] = reason
            steps = None
            release_memory()
    times, failed = interleave(ready, began + seconds, stopwatch)
    case.left_out |= failed
    case.contestants = [Contestant(name, taken, errors[name], extra[name]) for name, taken in times.items()]
    return case


class References:
    """The float64 results that contestants are held to, computed once for those that compute the same."""

    def __init__(self, penalty: str, weights: Sequence[Tensor]):
        self._penalty, self._weights = penalty, weights
        self._kept: dict[str, measure.Results] = {}

    def errors(self, name: str, steps: Steps) -> tuple[float, float] | None:
        """Relative errors of the value and of the worst gradient; None for a contestant without a value."""
        kind = "published" if name == "published" else "ours"
        if kind not in self._kept:
            torch.manual_seed(0)
            self._kept[kind] = measure.true_results(truth(kind, self._penalty, self._weights), self._weights)
        torch.manual_seed(0)  # the same start vectors
        value, gradients = steps.both()
        return None if value is None else measure.relative_errors((value, gradients), self._kept[kind])


def reason_it_is_wrong(name: str, errors: tuple[float, float] | None, dtype: str) -> str | None:
    """Times of wrong results are worth nothing."""
    limits = (VALUE_ERROR, GRADIENT_ERROR[dtype]) if name in OURS else (RIVALS_ERROR, RIVALS_ERROR)
    for what, error, limit in zip(("value", "gradients"), errors or (), limits, strict=False):
        if not error <= limit:
            return f"wrong, so not timed: its {what} off by {error:.1e}, at most {limit:.0e}"
    return None


def peak_extra_bytes(steps: Steps) -> int:
    """What a forward and backward allocate beyond what was there before, at their highest."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    steps.both()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def release_memory() -> None:
    """After a failure, which may have left the GPU unusable: then whatever comes next says so itself."""
    try:
        torch.cuda.empty_cache()
    except Exception:
        return


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.gpu.penalties", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", nargs="+", choices=tuple(model_shapes.MODELS), default=["resnet50"])
    parser.add_argument("--penalty", nargs="+", choices=PENALTIES, default=list(PENALTIES))
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=["float32"])
    parser.add_argument(
        "--rivals",
        nargs="+",
        metavar="NAME",
        choices=contestants.NAMES,
        default=[name for name in contestants.NAMES if name not in contestants.ON_REQUEST],
        help=f"of {', '.join(contestants.NAMES)}; by default all but {' and '.join(contestants.ON_REQUEST)}",
    )
    parser.add_argument(
        "--seconds", type=accepted.seconds, default=10.0, help="for one case, checks and captures included"
    )
    parser.add_argument("--out", type=accepted.output_file, default=str(RESULTS),
                        help="a file of JSON lines, to which each case is added")  # fmt: skip
    options = parser.parse_args(arguments)
    about = facts()
    if not torch.cuda.is_available():
        append(options.out, {"facts": about, "left_out": dict.fromkeys(options.rivals, NO_GPU)})
        print(f"Nothing was timed: {NO_GPU}.", file=sys.stderr)
        return 1
    print(f"{about['card']}, torch {about['torch']}")
    missing = set()
    for model in options.model:
        for dtype in options.dtype:
            for penalty in options.penalty:
                case = run(options.rivals, penalty, model, dtype, options.seconds)
                append(options.out, {"facts": about, **case.record()})
                print(f"\n{case.table()}", flush=True)
                missing |= set(case.left_out) & set(OURS)
    print(f"\nadded to {options.out}")
    if missing:
        print(f"Not timed in every case: {', '.join(sorted(missing))}.", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
