"""The rows of a benchmark run: as CSV, as a plot, as a table of ratios."""

from __future__ import annotations

import csv
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import ClassVar

import pytest
import torch

from .measure import PHASES, Measurement
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
        FOLDER.mkdir(exist_ok=True)
        table = FOLDER / "penalties.csv"
        with table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(
                ["penalty", "model", "rival", "phase", "median_ms", "min_ms", "rounds", "times_ours", "launches",
                 "peak_extra_mib", "value_error", "gradient_error", "threads", "machine"]
            )  # fmt: skip
            for (penalty, model, rival), row in self.rows.items():
                for phase in PHASES:
                    seconds = row.seconds[phase]
                    writer.writerow(
                        [penalty, model, rival, phase, f"{1e3 * median(seconds):.4f}", f"{1e3 * min(seconds):.4f}",
                         len(seconds), f"{self.ratio(penalty, model, rival, phase):.3f}", row.launches,
                         f"{row.peak_extra_bytes / 2**20:.2f}", f"{row.value_error:.2e}", f"{row.gradient_error:.2e}",
                         torch.get_num_threads(), machine()]
                    )  # fmt: skip
        return [table, self.plot(FOLDER / "penalties.svg")]

    def plot(self, path: Path) -> Path:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        penalties = list(dict.fromkeys(penalty for penalty, _, _ in self.rows))
        models = list(dict.fromkeys(model for _, model, _ in self.rows))
        figure, axes = plt.subplots(1, len(penalties), figsize=(5.2 * len(penalties), 3.6), squeeze=False)
        for axis, penalty in zip(axes[0], penalties, strict=True):
            for place, (rival, color) in enumerate(
                zip(RIVALS, ("#b0b7c3", "#7c9cbf", "#4c78a8", "#e4572e"), strict=True)
            ):
                cells = [(i, self.rows.get((penalty, model, rival))) for i, model in enumerate(models)]
                xs = [i + 0.2 * (place - 1.5) for i, row in cells if row is not None]
                heights = [1e3 * median(row.seconds["both"]) for _, row in cells if row is not None]
                bars = axis.bar(xs, heights, 0.19, label=rival, color=color)
                if rival != "ours":
                    ratios = [f"{self.ratio(penalty, models[i], rival):.3g}×" for i, row in cells if row is not None]
                    axis.bar_label(bars, ratios, fontsize=6, rotation=90, padding=2)
            axis.set_yscale("log")
            axis.margins(y=0.16)
            axis.set_xticks(range(len(models)), models, fontsize=8)
            axis.set_title({"so": "soft orthogonality", "srip": "SRIP"}[penalty], fontsize=10)
            axis.spines[["top", "right"]].set_visible(False)
        axes[0][0].set_ylabel("forward + backward, ms (median)")
        axes[0][0].legend(frameon=False, fontsize=8)
        figure.text(0.01, 0.005, f"{machine()}; labels: times as long as ours", fontsize=6.5, color="#555")
        figure.tight_layout(rect=(0, 0.03, 1, 1))
        figure.savefig(path)
        plt.close(figure)
        return path


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
