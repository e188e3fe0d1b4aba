"""Figures as files, in one style."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

GRAY, PALE, BLUE, RED, ORANGE = "#b0b7c3", "#7c9cbf", "#4c78a8", "#e4572e", "#f2a541"


@contextmanager
def panels(path: Path, rows: int, columns: int, size: tuple[float, float], caption: str) -> Iterator:
    """Yields an array of axes, each of that size in inches, of one scale a row; in the end writes the file."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    height = size[1] * rows
    figure, axes = plt.subplots(rows, columns, figsize=(size[0] * columns, height), squeeze=False, sharey="row")
    yield axes
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    figure.text(0.01, 0.02 / height, caption, fontsize=6.5, color="#555")
    figure.tight_layout(rect=(0, 0.12 / height, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


def grouped_bars(axis, groups: Sequence[str], series: Mapping[str, Sequence[float]]) -> None:
    """A bar for each group and series, on a logarithmic scale; NaN is none. Labels are ratios to the last series, ours."""
    (*_, ours), colors = series.values(), (GRAY, PALE, BLUE, RED)
    for number, ((label, heights), color) in enumerate(zip(series.items(), colors, strict=True)):
        bars = axis.bar([i + 0.2 * (number - 1.5) for i in range(len(groups))], heights, 0.19, label=label, color=color)
        if heights is not ours:
            ratios = [height / own for height, own in zip(heights, ours, strict=True)]
            labels = ["" if math.isnan(each) else f"{each:.3g}×" for each in ratios]
            axis.bar_label(bars, labels, fontsize=6, rotation=90, padding=2)
    axis.set_yscale("log")
    axis.margins(y=0.18)
    axis.set_xticks(range(len(groups)), groups, fontsize=7)
