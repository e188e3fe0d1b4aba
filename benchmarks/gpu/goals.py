"""What the package is to reach on an H100 or H200, beside what a day measured: `python -m benchmarks.gpu.goals FOLDER`.

Device times are those of CUDA graphs, of a forward with its backward, after L2 was emptied; ours is the faster of the two
backends. Floors are bytes at the copy rate of the same day.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import model_shapes
from benchmarks.gpu_day_figures import facts, figures

from .json_lines import read

STAGES = ("wheels", "build", "ceilings", "doctor", "smoke", "rivals", "host", "memcheck", "racecheck", "training")
OURS = ("cuda-graph", "triton-graph")
ENTRY_BYTES = {"float32": 4, "bfloat16": 2}


class NotMeasuredError(LookupError):
    """A figure that a goal needs; its name."""


@dataclass(frozen=True)
class Goal:
    """One thing to reach: `limit` is the most of `value`, or with `least` the least."""

    name: str
    value: Callable[[Day], float]
    limit: float
    unit: str
    least: bool = False

    def row(self, day: Day) -> str:
        sign = ">=" if self.least else "<="
        goal = f"{self.name:44} {sign} {self.limit:g} {self.unit}".rstrip()
        try:
            value = self.value(day)
        except NotMeasuredError as error:
            return f"{goal:62} not measured ({error})"
        met = value >= self.limit if self.least else value <= self.limit
        return f"{goal:62} {value:.4g} {self.unit}".rstrip() + f": {'met' if met else 'MISSED'}"


class Day:
    """The figures of a day, by stage and case."""

    def __init__(self, findings: Sequence[dict]) -> None:
        self.card = facts(findings).get("card", "")
        self._statuses = {finding["stage"]: finding["status"] for finding in findings if "status" in finding}
        self._figures = {
            (finding["stage"], case): value
            for finding in findings
            if "stage" in finding
            for case, value, _ in figures(finding)
        }

    def figure(self, stage: str, case: str) -> float:
        try:
            return self._figures[stage, case]
        except KeyError:
            raise NotMeasuredError(f"{stage}: {case}") from None

    def microseconds(self, case: str, *names: str) -> float:
        """Of the fastest of these contestants."""
        found = [self._figures.get(("rivals", f"{case} {name} both"), math.inf) for name in names]
        if min(found) == math.inf:
            raise NotMeasuredError(f"rivals: {case} {' or '.join(names)}")
        return min(found)

    def floor(self, case: str, times: float) -> float:
        """Microseconds in which a copy moves so many times the weights' bytes."""
        _, model, dtype = case.split()
        entries = sum(map(math.prod, model_shapes.MODELS[model]()))
        return times * entries * ENTRY_BYTES[dtype] / (1e6 * self.figure("ceilings", "copy"))

    def failures(self, *stages: str) -> float:
        """How many of these stages did not end well."""
        if missing := [name for name in stages if self._statuses.get(name, "not run") == "not run"]:
            raise NotMeasuredError(", ".join(missing))
        return sum(self._statuses[name] != "ok" for name in stages)


SO, SO_VIT = "so resnet50 float32", "so vit_base float32"
SO_16, SO_VIT_16 = "so resnet50 bfloat16", "so vit_base bfloat16"
SRIP = "srip resnet50 float32"


def _ours(case: str) -> Callable[[Day], float]:
    return lambda day: day.microseconds(case, *OURS)


def _over(rival: str, case: str) -> Callable[[Day], float]:
    return lambda day: day.microseconds(case, rival) / day.microseconds(case, *OURS)


def _floors(case: str, times: float) -> Callable[[Day], float]:
    return lambda day: day.microseconds(case, *OURS) / day.floor(case, times)


def _figure(stage: str, case: str, factor: float = 1.0) -> Callable[[Day], float]:
    return lambda day: factor * day.figure(stage, case)


def _fed(day: Day) -> float:
    figure = "images per second"
    return 100 * day.figure("training", f"none {figure}") / day.figure("training", f"held batch {figure}")


def goals(card: str) -> Iterator[Goal]:
    yield Goal("doctor, smoke tests: stages that failed", lambda day: day.failures("doctor", "smoke"), 0, "")
    yield Goal("memcheck, racecheck: stages that failed", lambda day: day.failures("memcheck", "racecheck"), 0, "")
    yield Goal("SO float32, ResNet-50", _ours(SO), 450, "us")
    yield Goal("  cuBLAS's products alone over ours", _over("products-graph", SO), 2.5, "x", least=True)
    yield Goal("  eager over ours", _over("graph", SO), 6, "x", least=True)
    yield Goal("  bucketed over ours", _over("bucketed-graph", SO), 3, "x", least=True)
    for name, case, tf32, bf16 in (("ResNet-50", SO_16, 2.6, 1.6), ("ViT-B", SO_VIT_16, 3.7, 2.2)):
        yield Goal(f"SO bfloat16, {name}, over 3 W, R in tf32", _floors(case, 3), tf32, "x")
        yield Goal(f"SO bfloat16, {name}, over 3 W, R in bf16", _floors(case, 3), bf16, "x")
    yield Goal("SRIP float32, ResNet-50, over 5 W", _floors(SRIP, 5), 2.6 if "H200" in card else 2.0, "x")
    yield Goal("SO float32, ViT-B", _ours(SO_VIT), 2600, "us")
    yield Goal("host, 54 weights: by autograd", _figure("host", "so resnet50 cuda host autograd"), 300, "us")
    yield Goal("host, 54 weights: accumulated", _figure("host", "so resnet50 cuda host accumulate"), 120, "us")
    yield Goal("training: SO's share of the step", _figure("training", "so penalty share", 100), 2.5, "%")
    yield Goal("training: SRIP's share of the step", _figure("training", "srip penalty share", 100), 2, "%")
    yield Goal("training: images/s over those without data", _fed, 97, "%", least=True)


def table(findings: Sequence[dict]) -> str:
    """A line a goal, with what was measured and whether it was met."""
    day = Day(findings)
    return "\n".join(goal.row(day) for goal in goals(day.card))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.gpu.goals", description=__doc__)
    parser.add_argument("folder", type=Path, help="where gpu_day.py wrote results.jsonl")
    results = parser.parse_args(arguments).folder / "results.jsonl"
    if not results.exists():
        print(f"There is no {results}: give the folder that gpu_day.py wrote to (its --out).", file=sys.stderr)
        return 1
    print(table(list(read(results))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
