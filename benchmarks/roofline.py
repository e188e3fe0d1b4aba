"""How near each step comes to the roofline of this machine: rows of one run as CSV, as a table, as a drawing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import ClassVar

import pytest

from .drawing import BLUE, GRAY, ORANGE, PALE, RED, panels
from .machine_rates import Rates
from .results import FOLDER, machine, origin, write_csv

COLORS = {"published": GRAY, "eager": PALE, "compiled": BLUE, "ours": RED, "ours, no graph": ORANGE}
MARKERS = {"so": "o", "srip": "s"}


@dataclass
class Step:
    """A forward and backward over all weights. Work: the least that the penalty needs, whoever computes it."""

    threads: int
    penalty: str
    model: str
    rival: str
    seconds: list[float]
    flop: float
    traffic: float  # bytes: every weight read once, every gradient written once
    rates: Rates

    @property
    def bound(self) -> str:
        return "multiply-adds" if self.flop / self.rates.multiply_add > self.traffic / self.rates.copy else "memory"

    @property
    def share(self) -> float:
        """Of the roofline: the least time that this machine could take over the shortest time seen."""
        return max(self.flop / self.rates.multiply_add, self.traffic / self.rates.copy) / min(self.seconds)


@dataclass
class RooflineResults:
    key: ClassVar[pytest.StashKey] = pytest.StashKey()
    steps: list[Step] = field(default_factory=list)

    def times_ours(self, step: Step) -> float:
        """The rival's shortest time over ours, forward and backward with a graph."""
        ours = next(s for s in self.steps if (s.threads, s.penalty, s.model, s.rival) ==
                    (step.threads, step.penalty, step.model, "ours"))  # fmt: skip
        return min(step.seconds) / min(ours.seconds)

    def table(self) -> str:
        lines = [f"{machine()}\n"]
        for threads in dict.fromkeys(step.threads for step in self.steps):
            rates = [step.rates for step in self.steps if step.threads == threads]
            most = {
                name: max(getattr(r, name) for r in rates) / 1e9 for name in ("multiply_add", "sgemm", "read", "copy")
            }
            lines.append(
                f"{threads} threads: {most['multiply_add']:.0f} GFLOP/s multiply-add, {most['sgemm']:.0f} sgemm; "
                f"{most['read']:.1f} GB/s read, {most['copy']:.1f} copied\n"
            )
        lines.append(
            f"{'threads':>7} {'penalty':8}{'model':11}{'step':22}{'min ms':>9}{'median':>9}{'x ours':>8}{'share':>7} of\n"
        )
        for step in self.steps:
            lines.append(
                f"{step.threads:7} {step.penalty:8}{step.model:11}{step.rival:22}{1e3 * min(step.seconds):9.2f}"
                f"{1e3 * median(step.seconds):9.2f}{self.times_ours(step):8.2f}{100 * step.share:6.0f}% {step.bound}\n"
            )
        return "".join(lines)

    def write(self) -> list[Path]:
        rows = [
            {
                "threads": s.threads, "penalty": s.penalty, "model": s.model, "step": s.rival,
                "min_ms": f"{1e3 * min(s.seconds):.3f}", "median_ms": f"{1e3 * median(s.seconds):.3f}",
                "rounds": len(s.seconds), "times_ours": f"{self.times_ours(s):.3f}", "gflop": f"{s.flop / 1e9:.3f}",
                "traffic_mb": f"{s.traffic / 1e6:.1f}", "share_of_roofline": f"{s.share:.3f}", "bound": s.bound,
                "multiply_add_gflops": f"{s.rates.multiply_add / 1e9:.1f}", "sgemm_gflops": f"{s.rates.sgemm / 1e9:.1f}",
                "read_gbs": f"{s.rates.read / 1e9:.1f}", "copy_gbs": f"{s.rates.copy / 1e9:.1f}", **origin(),
            }
            for s in self.steps
        ]  # fmt: skip
        return [write_csv(FOLDER / "cpu_roofline.csv", rows), self.draw(FOLDER / "cpu_roofline.svg")]

    def draw(self, path: Path) -> Path:
        threads = list(dict.fromkeys(step.threads for step in self.steps))
        caption = f"{machine()}; circles SO, squares SRIP"
        with panels(path, 1, len(threads), (5.4, 4.0), caption) as axes:
            for axis, count in zip(axes[0], threads, strict=True):
                _draw_panel(axis, [step for step in self.steps if step.threads == count])
                axis.set_title(f"{count} thread{'s' if count > 1 else ''}", fontsize=10)
            axes[0][0].set_ylabel("least work / time, GFLOP/s")
            axes[0][0].legend(frameon=False, fontsize=7, loc="lower right")
        return path


def _draw_panel(axis, steps: list[Step]) -> None:
    """The roofline, and the steps below it."""
    peak = max(step.rates.multiply_add for step in steps)
    copy = max(step.rates.copy for step in steps)
    intensities = [1.0, peak / copy, 2.0**11]
    axis.plot(intensities, [min(peak, copy * x) / 1e9 for x in intensities], color="#333", linewidth=1)
    axis.text(intensities[-1], peak / 1e9, f"{peak / 1e9:.0f} GFLOP/s", ha="right", va="bottom", fontsize=7)
    axis.text(1, copy / 1e9, f" {copy / 1e9:.1f} GB/s", ha="left", va="bottom", fontsize=7)
    for rival, color in COLORS.items():
        for penalty, marker in MARKERS.items():
            own = [step for step in steps if (step.rival, step.penalty) == (rival, penalty)]
            intensity, rate = [s.flop / s.traffic for s in own], [s.flop / min(s.seconds) / 1e9 for s in own]
            label = rival if penalty == "so" else None
            axis.scatter(intensity, rate, s=22, color=color, marker=marker, label=label)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xlabel("least work / least traffic, FLOP/byte")
