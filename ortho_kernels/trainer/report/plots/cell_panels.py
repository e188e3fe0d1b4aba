"""What one cell of a map scores: every gamma beside gamma 0, and the controls beside these, on one scale."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..map_cells import BASELINE, Series
from ..measures import Measure
from ..palette import COLORS, SERIES
from ..recommended_gamma import Judged
from .looks import OF_PENALTY
from .panels import AXIS, LARGE, Panel, panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE = COLORS[SERIES[0]][0]  # of gamma 0
GAP = 1.1  # between the penalties, the controls and gamma 0, in places
LEAST_GAP = 0.62  # between two gammas
LABELS_APART = 34.0  # points


@dataclass(frozen=True)
class Place:
    """Where a group stands on the axis, and how its number is written there."""

    x: float
    label: str
    group: str


def cell_panel(judged: Judged, measure: Measure) -> Panel | None:
    """None where the cell has no score at gamma 0, or nothing beside it."""
    if judged.model is None or len(judged.model.effects) < 2:
        return None
    drawn = [series for series in judged.cell.series if judged.held(series)]
    places = _places(drawn)
    factor = 100.0 if measure.is_share else 1.0
    unit = " (%)" if measure.is_share else ""

    def draw(axes: "Axes") -> None:
        baseline = factor * _mean_of(judged)
        axes.axhline(baseline, color=LINE, linewidth=1.2)
        _dots(axes, judged, Place(0.0, "0", BASELINE), factor, LINE)
        axes.plot([0], [baseline], "o", color=LINE, markersize=5)
        for series in drawn:
            _draw_series(
                axes, judged, series, [p for p in places[series.name] if p.group in judged.held(series)], factor
            )
        _label(axes, drawn, places)

    return panel(f"{judged.cell.name}: {measure.short}{unit}", LARGE, draw)


def _draw_series(axes: "Axes", judged: Judged, series: Series, places: Sequence[Place], factor: float) -> None:
    assert judged.model is not None
    color, gains, baseline = color_of(series), judged.gains(series), _mean_of(judged)
    xs = [place.x for place in places]
    means = [factor * (baseline + gains[place.group].value) for place in places]
    half = [factor * gains[place.group].half_width for place in places]
    line: dict[str, Any] = {"color": color, "linestyle": "none" if series.is_control else "-", "linewidth": 1.2}
    axes.errorbar(xs, means, yerr=half, marker="D" if series.is_control else "o", markersize=4.5, capsize=2.5, **line)
    for place in places:
        _dots(axes, judged, place, factor, color)


def _dots(axes: "Axes", judged: Judged, place: Place, factor: float, color: str) -> None:
    """The runs, beside their mean, which would hide them."""
    from matplotlib.transforms import ScaledTranslation

    assert axes.figure is not None
    beside = axes.transData + ScaledTranslation(6 / 72, 0, axes.figure.dpi_scale_trans)
    values = [factor * value for value in judged.scores[place.group].values()]
    if len(values) > 1:
        axes.plot([place.x] * len(values), values, ".", transform=beside, color=color, alpha=0.6, markersize=3.5)


def color_of(series: Series) -> str:
    order = [*OF_PENALTY, "weight decay"]
    name = series.name.partition(",")[0].lower()
    return COLORS[SERIES[order.index(name) if name in order else len(order)]][0]


def _mean_of(judged: Judged) -> float:
    values = judged.scores[BASELINE].values()
    return sum(values) / len(values)


def _places(drawn: Sequence[Series]) -> dict[str, list[Place]]:
    """Gammas of a penalty stand on a log scale of their own, numbers of a control side by side."""
    found, x = {}, 0.0
    for series in drawn:
        x += GAP
        xs = [x + i for i in range(len(series.numbers))] if series.is_control else _spread(series.numbers, x)
        found[series.name] = [
            Place(at, value, group.label) for at, value, group in zip(xs, series.values, series.groups, strict=True)
        ]
        x = xs[-1]
    return found


def _spread(gammas: Sequence[float], first: float) -> list[float]:
    """As far apart as their logarithms, one place on average."""
    logs = [math.log10(gamma) for gamma in gammas]
    width = (logs[-1] - logs[0]) / max(len(logs) - 1, 1)
    xs = [first]
    for before, after in itertools.pairwise(logs):
        xs.append(xs[-1] + max((after - before) / width, LEAST_GAP))
    return xs


def _label(axes: "Axes", drawn: Sequence[Series], places: dict[str, list[Place]]) -> None:
    """Numbers below the axis where they have room, and under them what they are of."""
    last = max(place.x for of_series in places.values() for place in of_series)
    axes.set_xlim(-0.6, last + 0.7)
    room = LABELS_APART * (last + 1.3) / (0.86 * LARGE.width)  # in places
    ticks: list[tuple[float, str]] = [(0.0, "0")]
    for place in (place for series in drawn for place in places[series.name]):
        if place.x - ticks[-1][0] >= room or (len(places) > 1 and place.x - ticks[-1][0] >= 1):
            ticks.append((place.x, place.label))
    axes.set_xticks([x for x, _ in ticks], [label for _, label in ticks])
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(False, axis="x")
    axes.margins(y=0.08)
    under: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "top", "fontsize": 8.5}
    for series in drawn:
        xs = [place.x for place in places[series.name]]
        axes.axvline(xs[0] - GAP / 2, color=AXIS, linewidth=0.6, linestyle=":")
        name = series.name if series.is_control else f"{series.name}, gamma"
        axes.text((xs[0] + xs[-1]) / 2, -0.115, name, color=color_of(series), **under)
