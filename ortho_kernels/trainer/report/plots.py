"""Plots of runs, as SVG text. Needs matplotlib, which is imported when the first one is drawn, and no display."""

import io
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from .collapse import LEAST_SPREAD
from .decimation import decimate
from .live_run import Curve, LiveRun, steps_of
from .record import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Run = TypeVar("Run", RunRecord, LiveRun)
COLORS = ("#7a8190", "#b4451f", "#1f6f8b", "#5b8c3a", "#7d4f9e", "#c2912e")  # told apart by color-blind readers too
MOST_PANELS = 30
MOST_PIXELS = 600  # across a live curve
FEW_POINTS = 30  # each of which is marked
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.edgecolor": "#9aa0aa",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e8eaee",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "text.color": "#22262e",
    "axes.labelcolor": "#22262e",
    "xtick.color": "#555c68",
    "ytick.color": "#555c68",
    "svg.hashsalt": "ortho_kernels",  # the same figure is the same text
}


def training_curves(runs: Sequence[RunRecord]) -> str:
    """Loss, distance from orthogonality and spread of the projections over the steps."""
    panels = {
        "loss": "loss of the method",
        "penalty_raw": "penalty before gamma (sum over layers)",
        "spread": "spread of projections (0: collapsed)",
    }

    def draw(figure: "Figure") -> None:
        for axes, (column, title) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
            for run, color in _with_colors(runs):
                axes.plot(run.metrics["step"], run.metrics[column], color=color, label=run.label)
            axes.set_title(title)
            axes.set_xlabel("step")
            if column == "spread":
                axes.axhline(LEAST_SPREAD, color="#22262e", linewidth=0.6, linestyle=":")  # collapsed below
                axes.set_ylim(bottom=0)
        _legend(figure)

    return _svg(draw, width=9.2, height=2.9)


def running_scores(runs: Sequence[RunRecord]) -> str:
    """The scores of a run while it trained, and below them the penalty of its layers; empty where no run has any."""
    scores = {"knn": "kNN", "effective_rank": "effective rank", "rankme": "RankMe"}
    judged = [(run, color) for run, color in _with_colors(runs) if run.evaluations]
    if not judged:
        return ""
    panels_of_layers = judged[:MOST_PANELS]
    columns = max(len(scores), min(len(panels_of_layers), 4))
    rows = 1 + -(-len(panels_of_layers) // columns)

    def draw(figure: "Figure") -> None:
        first, *others = figure.subplots(rows, columns, squeeze=False)
        for axes, (column, title) in zip(first, scores.items(), strict=False):
            for run, color in judged:
                axes.plot(run.evaluations["step"], run.evaluations[column], ".-", color=color, label=run.label)
            axes.set_title(title)
        below = [axes for row in others for axes in row]
        for axes, (run, _) in zip(below, panels_of_layers, strict=False):
            _layers(axes, run)
        for axes in [*first[len(scores) :], *below[len(panels_of_layers) :]]:
            axes.set_visible(False)
        _legend(figure)

    return _svg(draw, width=9.2, height=2.5 * rows + 0.4)


def _layers(axes: "Axes", run: RunRecord) -> None:
    """The penalty of each layer over the steps; a later layer's line is darker."""
    layers = [values for name, values in run.evaluations.items() if name.startswith("penalty/")]
    for depth, values in enumerate(layers):
        shade = f"{0.75 * (1 - (depth + 1) / len(layers)):.3f}"
        axes.plot(run.evaluations["step"], values, color=shade, linewidth=0.8)
    axes.set_yscale("log")
    axes.set_title(f"penalty by layer, {run.label}", fontsize=8)
    axes.set_xlabel("step")


def live_curve(curve: Curve, runs: Sequence[LiveRun]) -> str:
    """One curve of runs that may still train, without a legend."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        for run, color in _with_colors(runs):
            steps, values = run.curve(curve)
            axes.plot(*decimate(steps, values, MOST_PIXELS), color=color, marker="." if len(steps) < FEW_POINTS else "")
        axes.set_xlabel("step")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        first, last = steps_of(runs)
        room = (last - first) / 40 or 1.0
        axes.set_xlim(first - room, last + room)
        if curve.from_zero:
            axes.set_ylim(bottom=0)
        if curve.column == "spread":
            axes.axhline(LEAST_SPREAD, color="#22262e", linewidth=0.6, linestyle=":")  # collapsed below

    return _svg(draw, width=4.4, height=2.3)


def representation_spectra(runs: Sequence[RunRecord]) -> str:
    """Eigenvalues of the covariance of the features, relative to the largest."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        for run, color in _with_colors(runs):
            _falling(axes, run.representation, color, run.label)
        axes.set_yscale("log")
        axes.set_xlabel("direction")
        axes.set_ylabel("eigenvalue / largest")
        _legend(figure)

    return _svg(draw, width=9.2, height=3.2)


def weight_spectra(runs: Sequence[RunRecord]) -> str:
    """Singular values of every penalized weight, one panel a layer (evenly chosen layers, if there are many)."""
    layers = list(runs[0].weights)
    if len(layers) > MOST_PANELS:
        layers = [layers[round(i * (len(layers) - 1) / (MOST_PANELS - 1))] for i in range(MOST_PANELS)]
    columns = min(5, len(layers))
    rows = -(-len(layers) // columns)

    def draw(figure: "Figure") -> None:
        grid = figure.subplots(rows, columns, squeeze=False).flat
        for axes, layer in zip(grid, layers, strict=False):
            for run, color in _with_colors(runs):
                values = sorted(run.weights.get(layer, []), reverse=True)
                axes.plot(range(1, len(values) + 1), values, color=color, label=run.label)
            axes.axhline(1.0, color="#22262e", linewidth=0.6, linestyle=":")  # orthogonal
            axes.set_ylim(bottom=0)
            axes.set_title(layer.removesuffix(".weight"), fontsize=8)
            axes.tick_params(labelsize=7)
        for axes in list(grid)[len(layers) :]:
            axes.set_visible(False)
        _legend(figure)

    return _svg(draw, width=9.2, height=1.55 * rows + 0.4)


def _with_colors(runs: Sequence[Run]) -> Iterator[tuple[Run, str]]:
    return zip(runs, itertools.cycle(COLORS), strict=False)


def _falling(axes: "Axes", values: Sequence[float], color: str, label: str) -> None:
    largest = max(values, default=0.0) or 1.0
    axes.plot(range(1, len(values) + 1), [max(value / largest, 1e-12) for value in values], color=color, label=label)


def _legend(figure: "Figure") -> None:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))


def _svg(draw: Any, width: float, height: float) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # without pyplot, so no display and no global state

    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
