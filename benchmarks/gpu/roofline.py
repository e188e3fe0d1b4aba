"""A roofline model of the GPU kernels: `python -m benchmarks.gpu.roofline --model resnet50 --card h100`.

A model, no measurement: see `kernel_model.py` for what it assumes, `loop_model.py` for the loops that it is held against.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import torch

if __name__ == "__main__" and find_spec("ortho_kernels._introspect") is None:
    sys.exit(
        "The model asks the kernels' own planner, which `pip install -e . --no-build-isolation` builds for this Python."
    )

from benchmarks import model_shapes
from benchmarks.arguments import DTYPES, PENALTIES
from benchmarks.drawing import grouped_bars, panels

from . import kernel_model, loop_model
from .cards import CARDS, Card
from .kernel_model import Phase
from .loop_model import LoopModel

MODELS = ("resnet18", "resnet50", "vit_small", "vit_base", "vit_large", "transformer_1b", "transformer_8b")
LOOPS = ("published", "eager")
WARNING = "MODEL: computed from the plan and public figures of the card; nothing was measured."


@dataclass(frozen=True)
class Step:
    """One forward and backward of a penalty over a model's weights, as modeled."""

    model: str
    penalty: str
    dtype: str
    card: Card
    phases: list[Phase]
    loops: dict[str, LoopModel]

    @property
    def launches(self) -> int:
        return sum(len(phase.launches) for phase in self.phases)

    @property
    def seconds(self) -> float:
        return sum(phase.seconds(self.card) for phase in self.phases)

    @property
    def over_floor(self) -> float:
        """Modeled bytes of memory over those that no implementation does without."""
        return sum(phase.bytes for phase in self.phases) / sum(phase.floor_bytes for phase in self.phases)


def step(model: str, penalty: str, card: Card, dtype: str = "float32", precision: str = "highest") -> Step:
    shapes = model_shapes.MODELS[model]()
    weights = kernel_model.matrices(shapes, dtype)
    if penalty == "so":
        phases = kernel_model.soft_orthogonality(weights, card, precision)
    else:
        phases = kernel_model.srip(weights, card)
    # torch multiplies float32 outside the tensor cores unless told otherwise: its default precision is "highest".
    unit = {"highest": "float32", "high": "tf32", "medium": "tf32"}[precision] if dtype == "float32" else "bfloat16"
    loops = {
        name: loop_model.predict(loop_model.operators(name, penalty, shapes, getattr(torch, dtype)), card, unit)
        for name in LOOPS
    }
    return Step(model, penalty, dtype, card, phases, loops)


def describe(step: Step) -> str:
    """The step as a table."""
    lines = [
        f"{step.penalty.upper()} over {step.model}, {step.dtype}, on {step.card.title}",
        f"  {'modeled':20}{'launches':>9}{'items':>9}{'waves':>7}{'last wave':>10}{'balance':>8}{'GFLOP by unit':>28}"
        f"{'MiB':>10}{'x floor':>9}{'L2 MiB':>11}{'us':>10}  bound by",
    ]
    for phase in step.phases:
        for number, launch in enumerate(phase.launches):
            last = number == len(phase.launches) - 1
            total = (
                f"{phase.bytes / phase.floor_bytes:9.2f}{sum(each.l2_bytes for each in phase.launches) / 2**20:11.1f}"
                f"{1e6 * phase.seconds(step.card):10.1f}  {phase.binds(step.card)}"
            )
            lines.append(
                f"  {phase.name if number == 0 else '':20}{len(phase.launches) if number == 0 else '':>9}{launch.items:9}"
                f"{launch.waves:7.1f}{launch.last_wave:10.0%}{launch.balance(step.card):8.0%}{_by_unit(launch.flops):>28}"
                f"{launch.bytes / 2**20:10.1f}" + (total if last else "")
            )
    lines.append(
        f"  {'step':20}{step.launches:9}{'':62}{sum(p.bytes for p in step.phases) / 2**20:10.1f}"
        f"{step.over_floor:9.2f}{'':11}{1e6 * step.seconds:10.1f}"
    )
    for name, loop in step.loops.items():
        lines.append(
            f"  {name + ' loop':20}{loop.launches:9}{'':34}{_by_unit({'products': loop.flops}):>28}"
            f"{loop.bytes / 2**20:10.1f}{'':20}{1e6 * loop.seconds:10.1f}  {loop.seconds / step.seconds:.1f} x ours; "
            f"as a CUDA graph {1e6 * loop.graph_seconds:.1f} us, {loop.graph_seconds / step.seconds:.1f} x"
        )
    return "\n".join(lines)


def _by_unit(flops: dict[str, float]) -> str:
    return " + ".join(f"{each / 1e9:.3g} {unit}" for unit, each in flops.items())


def record(step: Step) -> dict:
    """The step for a JSON file."""
    return {
        "kind": "model, not measured",
        "model": step.model,
        "penalty": step.penalty,
        "dtype": step.dtype,
        "card": step.card.title,
        "launches": step.launches,
        "modeled_seconds": step.seconds,
        "modeled_bytes_over_floor": step.over_floor,
        "phases": [
            {
                "name": phase.name,
                "launches": len(phase.launches),
                "items": sum(launch.items for launch in phase.launches),
                "last_wave": [launch.last_wave for launch in phase.launches],
                "balance": [launch.balance(step.card) for launch in phase.launches],
                "flops": phase.flops,
                "bytes": phase.bytes,
                "floor_bytes": phase.floor_bytes,
                "modeled_seconds": phase.seconds(step.card),
                "bound_by": phase.binds(step.card),
            }
            for phase in step.phases
        ],
        "loops": {
            name: {
                "launches": loop.launches,
                "bytes": loop.bytes,
                "modeled_seconds": loop.seconds,
                "modeled_graph_seconds": loop.graph_seconds,
            }
            for name, loop in step.loops.items()
        },
    }


def chart(steps: Sequence[Step], path: Path) -> None:
    """Modeled times of all steps as bars: the loops and ours, one panel for each card and penalty."""
    penalties = list(dict.fromkeys(step.penalty for step in steps))
    cards = list(dict.fromkeys(step.card.title for step in steps))
    caption = f"{WARNING} Labels: times as long as ours."
    with panels(path, len(cards), len(penalties), (6.2, 3.5), caption) as axes:
        for axis, (card, penalty) in zip(axes.flat, product(cards, penalties), strict=True):
            own = [step for step in steps if (step.card.title, step.penalty) == (card, penalty)]
            series = {
                "published loop": [1e6 * step.loops["published"].seconds for step in own],
                "eager loop": [1e6 * step.loops["eager"].seconds for step in own],
                "eager loop as a CUDA graph": [1e6 * step.loops["eager"].graph_seconds for step in own],
                "ours": [1e6 * step.seconds for step in own],
            }
            grouped_bars(axis, [step.model.replace("_", "\n") for step in own], series)
            axis.set_title({"so": "soft orthogonality", "srip": "SRIP"}[penalty] + f" on {card} (model)", fontsize=10)
        for axis in axes[:, 0]:
            axis.set_ylabel("forward + backward, us")
        axes[0][0].legend(frameon=False, fontsize=7)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.gpu.roofline", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", choices=(*MODELS, "all"), default="resnet50")
    parser.add_argument("--card", choices=(*CARDS, "all"), default="h100")
    parser.add_argument("--penalty", choices=(*PENALTIES, "all"), default="all")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--precision", choices=("highest", "high", "medium"), default="highest",
                        help="torch's float32 matmul precision: of SO's backward, and of the loops' products")  # fmt: skip
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--chart", type=Path, help="draw modeled times into this file (SVG, PNG, PDF)")
    options = parser.parse_args(arguments)

    def chosen(option: str, all_of: Sequence[str]) -> Sequence[str]:
        return all_of if option == "all" else (option,)

    steps = []
    print(WARNING)
    for card in chosen(options.card, tuple(CARDS)):
        for model in chosen(options.model, MODELS):
            for penalty in chosen(options.penalty, PENALTIES):
                steps.append(step(model, penalty, CARDS[card], options.dtype, options.precision))
                print(f"\n{describe(steps[-1])}")
    if options.json:
        options.json.write_text(json.dumps([record(each) for each in steps], indent=1) + "\n")
    if options.chart:
        chart(steps, options.chart)
    return 0


if __name__ == "__main__":
    sys.exit(main())
