"""Curves over the steps of training, of finished runs and of those that still train."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..collapse import LEAST_SPREAD
from ..decimation import decimate
from ..groups import Group
from ..live_run import Curve, LiveRun, steps_of
from .drawing import FEW_POINTS, Looked, by_setting, curves_of, draw_curves, titled
from .looks import legend, looks, series
from .means import Points, positive
from .panels import INK, MEDIUM, Panel, Size, log_scale, panel, side_by_side, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LIVE = Size("live", 320, 165)
MOST_PIXELS = 600  # across a live curve
WIDE_RANGE = 20.0  # from the least to the largest value: beyond it the axis is a log one


def training_curves(groups: Sequence[Group]) -> str:
    """Loss, distance from orthogonality and spread of the projections over the steps.

    Losses of different methods and penalties of different kinds have panels of their own: they are no one scale.
    """
    looked = list(zip(groups, looks(groups), strict=True))
    panels = [
        *_panels("Loss of the method", "metrics", "loss", by_setting(looked, "method.name")),
        *_panels("Penalty before gamma", "metrics", "penalty_raw", by_setting(looked, "penalty.name")),
        *_panels("Spread of projections (0: collapsed)", "metrics", "spread", [("", looked)], _mark_collapse),
    ]
    return side_by_side(panels, MEDIUM, legend(groups))


def running_scores(groups: Sequence[Group]) -> str:
    """The scores of runs while they trained; empty where no run has any."""
    looked = list(zip(groups, looks(groups), strict=True))
    scores = {"knn": "kNN", "effective_rank": "Effective rank", "rankme": "RankMe"}
    panels = [one for column, title in scores.items() for one in _panels(title, "evaluations", column, [("", looked)])]
    return side_by_side(panels, MEDIUM, legend(groups, marked=True))


def live_curve(curve: Curve, runs: Sequence[LiveRun]) -> str:
    """One curve of runs that may still train, without a legend."""

    def draw(axes: "Axes") -> None:
        for i, run in enumerate(runs):
            steps, values = run.curve(curve)
            marker = "." if len(steps) < FEW_POINTS else ""
            axes.plot(*decimate(steps, values, MOST_PIXELS), marker=marker, **series(i).line())
        axes.set_xlabel("step")
        first, last = steps_of(runs)
        room = (last - first) / 40 or 1.0
        axes.set_xlim(first - room, last + room)
        if curve.from_zero:
            axes.set_ylim(bottom=0)
        if curve.column == "spread":
            _mark_collapse(axes)

    return svg(draw, LIVE.width, LIVE.height, curve.title)


def _panels(
    title: str,
    table: str,
    column: str,
    parts: Sequence[tuple[str, Sequence[Looked]]],
    finish: "Callable[[Axes], None] | None" = None,
) -> list[Panel]:
    """One for each part that has any value of the column."""
    panels = []
    for name, part in parts:
        curves = [(curves_of(group.runs, table, column), look) for group, look in part]
        if any(of_group for of_group, _ in curves):

            def draw(axes: "Axes", curves: list = curves) -> None:
                wide = column == "penalty_raw" and _spans_much([one for of_group, _ in curves for one in of_group])
                for of_group, look in curves:
                    draw_curves(axes, [(x, positive(y)) for x, y in of_group] if wide else of_group, look)
                axes.set_xlabel("step")
                if wide:
                    log_scale(axes.yaxis)
                if finish:
                    finish(axes)

            panels.append(panel(titled(title, name), MEDIUM, draw))
    return panels


def _spans_much(curves: Sequence[Points]) -> bool:
    values = np.concatenate([positive(y) for _, y in curves])
    return bool(np.isfinite(values).any() and np.nanmax(values) > WIDE_RANGE * np.nanmin(values))


def _mark_collapse(axes: "Axes") -> None:
    axes.axhline(LEAST_SPREAD, color=INK, linewidth=0.7, linestyle=":")  # collapsed below
    axes.set_ylim(bottom=0)
