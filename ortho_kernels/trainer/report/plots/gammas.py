"""Scores against gamma, beside the baseline that has none."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..groups import Group, families_of
from ..intervals import Interval, mean_interval
from ..palette import COLORS, SERIES
from .drawing import spelled, titled
from .looks import OF_PENALTY, Look, swatch
from .panels import MEDIUM, Panel, legend_of, log_scale, panel, side_by_side

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCORES = {
    "knn": ("kNN (%)", 100.0),
    "linear_probe": ("Linear probe (%)", 100.0),
    "representation_effective_rank": ("Effective rank of the features", 1.0),
}
BASELINE = COLORS[SERIES[0]][0]


@dataclass(frozen=True)
class Scored:
    gamma: float
    values: tuple[float, ...]  # one for each run

    @property
    def interval(self) -> Interval:
        return mean_interval(self.values)


@dataclass(frozen=True)
class Line:
    """What one penalty scores at its gammas, in ascending order."""

    label: str
    look: Look
    points: tuple[Scored, ...]


def score_against_gamma(groups: Sequence[Group]) -> str:
    """Mean and 95 % interval over seeds, a panel for each score and each setting of all but the penalty.

    Empty where no gamma can be compared with another or with a baseline.
    """
    families = [family for family in families_of(groups) if _comparable(family)]
    names = _names(families)
    panels, entries = [], {}
    for family, name in zip(families, names, strict=True):
        for key, (title, factor) in SCORES.items():
            lines, baseline = lines_of(family, key, factor), baseline_in(family, key, factor)
            if lines:
                panels.append(_panel(titled(title, name), lines, baseline))
                entries.update({line.label: swatch(line.look, marked=True) for line in lines})
                if baseline:
                    entries["baseline (band: 95 %)"] = swatch(Look(SERIES[0]))
    return side_by_side(panels, MEDIUM, legend_of((markup, label) for label, markup in entries.items()))


def lines_of(family: Sequence[Group], key: str, factor: float = 1.0) -> list[Line]:
    """A line for each penalty and its options but gamma."""
    kinds: dict[str, list[Group]] = {}
    for group in family:
        if not group.is_baseline:
            kinds.setdefault(json.dumps(_options(group), sort_keys=True, default=str), []).append(group)
    names = [str(of_kind[0].settings.get("penalty.name")) for of_kind in kinds.values()]
    lines = []
    for i, (name, of_kind) in enumerate(zip(names, kinds.values(), strict=True)):
        alike = [other[0] for other, its in zip(kinds.values(), names, strict=True) if its == name]
        label = spelled(name, [group.label for group in of_kind]) + _apart(of_kind[0], alike)
        color = list(dict.fromkeys([*OF_PENALTY, *names])).index(name)
        look = Look(SERIES[color % len(SERIES)], names[:i].count(name))
        points = [Scored(float(group.gamma or 0.0), _values(group, key, factor)) for group in of_kind]
        points = sorted((point for point in points if point.values), key=lambda point: point.gamma)
        if points:
            lines.append(Line(label, look, tuple(points)))
    return lines


def baseline_in(family: Sequence[Group], key: str, factor: float = 1.0) -> Interval | None:
    """Of the first one, if there are several: without a penalty its options change nothing."""
    values = [of_group for group in family if group.is_baseline and (of_group := _values(group, key, factor))]
    return mean_interval(values[0]) if values else None


def _panel(title: str, lines: Sequence[Line], baseline: Interval | None) -> Panel:
    def draw(axes: "Axes") -> None:
        from matplotlib.transforms import ScaledTranslation

        assert axes.figure is not None
        beside = ScaledTranslation(5 / 72, 0, axes.figure.dpi_scale_trans)  # the interval, which would hide them
        if baseline:
            axes.axhline(baseline.value, color=BASELINE, linewidth=1.2)
            if math.isfinite(baseline.half_width):
                axes.axhspan(baseline.low, baseline.high, color=BASELINE, alpha=0.2, linewidth=0)
        for i, line in enumerate(lines):
            aside = 1.05 ** (i - (len(lines) - 1) / 2)  # so that intervals at one gamma do not hide each other
            gammas = [aside * point.gamma for point in line.points]
            means = [point.interval.value for point in line.points]
            half = [point.interval.half_width for point in line.points]
            axes.errorbar(
                gammas, means, yerr=half, marker=line.look.marker, markersize=4.5, capsize=2.5, **line.look.line()
            )
            for gamma, point in zip(gammas, line.points, strict=True):
                if len(point.values) > 1:
                    style: dict[str, Any] = {"color": line.look.color, "alpha": 0.6, "markersize": 4}
                    axes.plot(
                        [gamma] * len(point.values), point.values, ".", transform=axes.transData + beside, **style
                    )
        axes.set_xlabel("gamma")
        axes.set_xscale("log")
        axes.margins(x=0.12)
        log_scale(axes.xaxis)

    return panel(title, MEDIUM, draw)


def _comparable(family: Sequence[Group]) -> bool:
    gammas = {group.gamma for group in family if group.gamma is not None}
    return len(gammas) > 1


def _values(group: Group, key: str, factor: float) -> tuple[float, ...]:
    values = [factor * run.results[key] for run in group.runs if run.results.get(key) is not None]
    return tuple(value for value in values if math.isfinite(value))


def _options(group: Group) -> dict[str, Any]:
    """Of the penalty, but gamma."""
    options = {key: value for key, value in group.settings.items() if key.startswith("penalty.")}
    return {key: value for key, value in options.items() if key != "penalty.gamma"}


def _apart(group: Group, alike: Sequence[Group]) -> str:
    """The options in which it differs from others of the same penalty."""
    options = [_options(other) for other in alike]
    own = _options(group)
    differing = [key for key in own if any(other.get(key) != own[key] for other in options)]
    return "".join(f", {key.removeprefix('penalty.')} {own[key]}" for key in differing)


def _names(families: Sequence[Sequence[Group]]) -> list[str]:
    """By the settings in which the families differ: by the method alone where that is enough."""
    if len(families) == 1:
        return [""]
    settings = [family[0].settings for family in families]
    methods = [str(one.get("method.name")) for one in settings]
    if len(set(methods)) == len(methods):
        return [
            spelled(method, [group.label for group in family]) for method, family in zip(methods, families, strict=True)
        ]
    keys = [key for key in settings[0] if not key.startswith("penalty.")]
    differing = [key for key in keys if any(one.get(key) != settings[0][key] for one in settings)]
    return [", ".join(f"{key}={one.get(key)}" for key in differing) for one in settings]
