"""What several figures draw alike: a group's curves, and panels of what can be compared with each other."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..decimation import Floats, decimate
from ..groups import Group
from ..record import RunRecord
from .looks import Look
from .means import Points, mean_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_COLUMNS = 130  # of a curve, two points wide each
MOST_VALUES = 90  # of a spectrum
FEW_POINTS = 16  # each of which is marked
Looked = tuple[Group, Look]


def draw_curves(axes: "Axes", curves: Sequence[Points], look: Look, marked: bool = True) -> None:
    """Those of a group's runs, thin, and their mean; a run alone is its own mean. Few points are `marked`."""
    if len(curves) > 1:
        for x, y in curves:
            axes.plot(*decimate(x, y, MOST_COLUMNS), **look.line(alone=True))
    if curves:
        x, y = mean_curve(curves)
        marker = look.marker if marked and np.isfinite(y).sum() <= FEW_POINTS else ""
        axes.plot(*(decimate(x, y, MOST_COLUMNS) if len(x) else (x, y)), marker=marker, markersize=3.2, **look.line())


def curves_of(runs: Sequence[RunRecord], table: str, column: str) -> list[Points]:
    """A column of the runs' metrics or evaluations over the steps; runs without finite values are left out."""
    curves = []
    for run in runs:
        rows = getattr(run, table)
        y = np.asarray(rows.get(column, []), dtype=float)
        if np.isfinite(y).any():
            curves.append((np.asarray(rows["step"], dtype=float), y))
    return curves


def thinned(values: Floats) -> Points:
    """A spectrum over its ranks from 1 on: all of a short one, else evenly on a log axis and on a linear one."""
    ranks = np.arange(1, len(values) + 1)
    if len(ranks) > MOST_VALUES:
        even = np.linspace(1, len(ranks), MOST_VALUES // 2)
        ranks = np.unique(np.concatenate([even, np.geomspace(1, len(ranks), MOST_VALUES // 2)]).round().astype(int))
    return ranks.astype(float), values[ranks - 1]


def by_setting(groups: Sequence[Looked], setting: str) -> list[tuple[str, list[Looked]]]:
    """Groups that agree in a setting, under its value as the groups' labels spell it; one part has no name."""
    parts: dict[str, list[Looked]] = {}
    for group, look in groups:
        parts.setdefault(str(group.settings.get(setting)), []).append((group, look))
    if len(parts) == 1:
        return [("", list(groups))]
    return [(spelled(value, [group.label for group, _ in part]), part) for value, part in parts.items()]


def spelled(value: str, labels: Sequence[str]) -> str:
    """As the labels write it: simclr is SimCLR in "SimCLR baseline"."""
    found = (re.search(rf"\b{re.escape(value)}\b", label, re.IGNORECASE) for label in labels)
    return next((match[0] for match in found if match), value)


def titled(title: str, part: str) -> str:
    return f"{title}, {part}" if part else title
