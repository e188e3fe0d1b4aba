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
from .panels import AXIS, LARGE, SOFT, Panel, panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE = COLORS[SERIES[0]][0]  # of gamma 0
GAP = 1.1  # between the penalties, the controls and gamma 0, in places
LEAST_GAP = 0.62  # between two gammas
ASIDE = 0.02  # of the runs beside their mean, as a share of the axis
LETTER = 0.0155  # of a label, likewise


@dataclass(frozen=True)
class Place:
    """Where a group stands on the axis, and how its number is written there."""

    x: float
    label: str
    group: str


def cell_panel(judged: Judged, measure: Measure) -> Panel | None:
    """None where the cell has no score at gamma 0, or nothing beside it."""
    model = judged.model
    if model is None or len(model.effects) < 2:
        return None
    drawn = [one for one in judged.cell.series if any(judged.scores.get(group.label) for group in one.groups)]
    places = _places(drawn)
    factor, unit = (100.0, " (%)") if measure.is_share else (1.0, "")
    runs = {name: [factor * value for value in own.values()] for name, own in judged.scores.items()}
    for name in model.effects:
        own = judged.scores[name]
        runs[name] = [factor * (own[seed] - effect) for seed, effect in model.seeds.items() if seed in own]
    baseline = sum(runs[BASELINE]) / len(runs[BASELINE])

    def draw(axes: "Axes") -> None:
        axes.set_xlim(-0.6, max(place.x for of_series in places.values() for place in of_series) + 0.7)
        axes.axhline(baseline, color=LINE, linewidth=1.2)
        axes.plot([0], [baseline], "o", color=LINE, markersize=5)
        _dots(axes, 0.0, runs[BASELINE], LINE)
        reached = [*runs[BASELINE]]
        for series in drawn:
            held = [place for place in places[series.name] if place.group in judged.held(series)]
            gains = [judged.gains(series)[place.group] for place in held]
            means = [baseline + factor * gain.value for gain in gains]
            half = [factor * gain.half_width for gain in gains]
            _bars(axes, [place.x for place in held], means, half, series)
            for place in held:
                _dots(axes, place.x, runs[place.group], color_of(series))
                reached += runs[place.group]
            reached += [mean + sign * h for mean, h in zip(means, half, strict=True) for sign in (-1, 1) if h >= 0]
        room = 0.07 * (max(reached) - min(reached)) or 1.0
        axes.set_ylim(min(reached) - room, max(reached) + room)
        for place in (place for series in drawn for place in places[series.name] if place.group in judged.left_out):
            _crosses(axes, place.x, runs[place.group])
        _label(axes, drawn, places)

    return panel(f"{judged.cell.name}: {measure.short}{unit}", LARGE, draw)


def _bars(axes: "Axes", xs: list[float], means: list[float], half: list[float], series: Series) -> None:
    """Penalties are curves, controls are marks of their own."""
    look: dict[str, Any] = {"marker": "D", "linestyle": "none"} if series.is_control else {"marker": "o"}
    axes.errorbar(xs, means, yerr=half, color=color_of(series), markersize=4.5, capsize=2.5, linewidth=1.2, **look)


def _dots(axes: "Axes", x: float, values: list[float], color: str) -> None:
    """The runs, less what their seed adds, beside their mean, which would hide them."""
    if len(values) > 1:
        axes.plot([x + ASIDE * _width(axes)] * len(values), values, ".", color=color, alpha=0.6, markersize=3.5)


def _width(axes: "Axes") -> float:
    """In places."""
    low, high = axes.get_xlim()
    return high - low


def _crosses(axes: "Axes", x: float, values: list[float]) -> None:
    """Runs that are left out; those beyond the axis are arrows at its edge, with their value."""
    low, high = axes.get_ylim()
    for value in values:
        if low <= value <= high:
            axes.plot([x], [value], "x", color=SOFT, markersize=4)
    for edge, marker, beyond in (
        (low, "v", [v for v in values if v < low]),
        (high, "^", [v for v in values if v > high]),
    ):
        if beyond:
            axes.plot([x], [edge], marker, color=SOFT, markersize=4, clip_on=False)
            farthest = f"{beyond[0]:.3g}" if len(beyond) == 1 else f"{min(beyond):.3g}–{max(beyond):.3g}"
            above = edge == low
            axes.annotate(
                farthest, (x, edge), (0, 5 if above else -5), textcoords="offset points", color=SOFT, fontsize=7.5,
                ha="center", va="bottom" if above else "top",
            )  # fmt: skip


def color_of(series: Series) -> str:
    order = [*OF_PENALTY, "weight decay"]
    name = series.name.partition(",")[0].lower()
    return COLORS[SERIES[order.index(name) if name in order else len(order)]][0]


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
    letter = LETTER * _width(axes)
    ticks: list[tuple[float, str]] = [(0.0, "0")]
    for place in (place for series in drawn for place in places[series.name]):
        before, label = ticks[-1]
        if place.x - before >= letter * (1 + (len(label) + len(place.label)) / 2):
            ticks.append((place.x, place.label))
    axes.set_xticks([x for x, _ in ticks], [label for _, label in ticks])
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(False, axis="x")
    under: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "top", "fontsize": 8.5}
    for series in drawn:
        xs = [place.x for place in places[series.name]]
        axes.axvline(xs[0] - GAP / 2, color=AXIS, linewidth=0.6, linestyle=":")
        name = series.name if series.is_control else f"{series.name}, gamma"
        axes.text((xs[0] + xs[-1]) / 2, -0.115, name, color=color_of(series), **under)
