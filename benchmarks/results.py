"""The rows of a benchmark run: as CSV, as a drawing, as a table of ratios."""

from __future__ import annotations

import csv
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import ClassVar

import pytest
import torch

from .checkout import commit
from .drawing import grouped_bars, panels
from .measure import Measurement
from .rivals import RIVALS

FOLDER = Path(__file__).parent / "results"


@dataclass
class Results:
    """What one run measured, by (penalty, model, rival)."""

    key: ClassVar[pytest.StashKey] = pytest.StashKey()
    rows: dict[tuple[str, str, str], Measurement] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def ratio(self, penalty: str, model: str, rival: str, phase: str = "both") -> float:
        """How many times as long as ours the rival takes: a ratio of medians of one interleaved run."""
        seconds = [self.rows[penalty, model, name].seconds[phase] for name in (rival, "ours")]
        return median(seconds[0]) / median(seconds[1])

    def table(self) -> str:
        lines = [
            f"{machine()}\n",
            f"{'penalty':8}{'model':11}{'rival':11}{'median ms':>10}{'min ms':>10}{'x ours':>8}{'launches':>10}"
            f"{'extra MiB':>11}{'value err':>11}{'grad err':>10}\n",
        ]
        for (penalty, model, rival), row in self.rows.items():
            both = row.seconds["both"]
            lines.append(
                f"{penalty:8}{model:11}{rival:11}{1e3 * median(both):10.2f}{1e3 * min(both):10.2f}"
                f"{self.ratio(penalty, model, rival):8.1f}{row.launches if row.launches is not None else '-':>10}"
                f"{row.peak_extra_bytes / 2**20:11.1f}{row.value_error:11.1e}{row.gradient_error:10.1e}\n"
            )
        return "".join(lines)

    def write(self) -> list[Path]:
        rows = [
            {
                "penalty": penalty, "model": model, "rival": rival, "phase": phase,
                "median_ms": f"{1e3 * median(seconds):.4f}", "min_ms": f"{1e3 * min(seconds):.4f}", "rounds": len(seconds),
                "times_ours": f"{self.ratio(penalty, model, rival, phase):.3f}", "launches": row.launches,
                "peak_extra_mib": f"{row.peak_extra_bytes / 2**20:.2f}", "value_error": f"{row.value_error:.2e}",
                "gradient_error": f"{row.gradient_error:.2e}", **origin(),
            }
            for (penalty, model, rival), row in self.rows.items()
            for phase, seconds in row.seconds.items()
        ]  # fmt: skip
        return [write_csv(FOLDER / "penalties.csv", rows), self.draw(FOLDER / "penalties.svg")]

    def write_notes(self) -> Path:
        return write_csv(FOLDER / "notes.csv", [{"note": note, **origin()} for note in self.notes])

    def draw(self, path: Path) -> Path:
        penalties = list(dict.fromkeys(penalty for penalty, _, _ in self.rows))
        models = list(dict.fromkeys(model for _, model, _ in self.rows))
        with panels(path, 1, len(penalties), (5.2, 3.6), f"{machine()}; labels: times as long as ours") as axes:
            for axis, penalty in zip(axes[0], penalties, strict=True):
                series = {rival: [self.milliseconds(penalty, model, rival) for model in models] for rival in RIVALS}
                grouped_bars(axis, models, series)
                axis.set_title({"so": "soft orthogonality", "srip": "SRIP"}[penalty], fontsize=10)
            axes[0][0].set_ylabel("forward + backward, ms (median)")
            axes[0][0].legend(frameon=False, fontsize=8)
        return path

    def milliseconds(self, penalty: str, model: str, rival: str) -> float:
        """The median of forward and backward; NaN where the run had no such case."""
        row = self.rows.get((penalty, model, rival))
        return 1e3 * median(row.seconds["both"]) if row else math.nan


def write_csv(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def origin() -> dict[str, str]:
    """The last columns of every CSV."""
    return {"machine": machine(), "commit": commit()}


def machine() -> str:
    """The processor and what runs on it, as a caption."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        name = names[0] if names else name
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"
