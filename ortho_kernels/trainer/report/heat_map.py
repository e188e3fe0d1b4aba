"""What every setting of every cell makes better or worse than gamma 0: a table whose colors say how much."""

import html
import math
from collections.abc import Sequence

from .map_cells import Series
from .measures import MISSING, Measure
from .palette import NEGATIVE, POSITIVE
from .plots.panels import legend_of
from .recommended_gamma import Judged
from .statistics import excludes_zero

STRONGEST = 0.62  # opacity at the largest difference, on which text can still be read
STYLE = f"""
.heat td, .heat thead th {{ text-align: center; padding: .38rem .5rem; }}
.heat thead tr:first-child th {{ border-bottom: 0; color: var(--soft); font-weight: 400; padding-bottom: 0; }}
.heat thead th:first-child {{ text-align: left; padding-left: 0; }}
.heat td {{ border-left: 1px solid var(--paper); border-bottom-color: var(--paper); font-variant-numeric: tabular-nums; }}
.heat .first {{ border-left: .8rem solid var(--paper); }}
.heat td.baseline {{ color: var(--soft); }}
.heat td.clear {{ font-weight: 700; }}
.heat td.out {{ color: var(--soft); background: repeating-linear-gradient(45deg, transparent 0 4px, var(--line) 4px 5px); }}
.legend .heat-ramp {{ width: 8rem; background: linear-gradient(90deg, {NEGATIVE}9e, transparent, {POSITIVE}9e); }}
"""


def heat_map(cells: Sequence[Judged], measure: Measure) -> str:
    """A row a cell, a column a setting; empty where there is no difference to show."""
    columns = _columns(cells)
    gains = [{name: gain for one in judged.cell.series for name, gain in judged.gains(one).items()} for judged in cells]
    largest = max((abs(gain.value) for row in gains for gain in row.values()), default=0.0)
    if not any(gains):
        return ""
    heads = "".join(
        f"<th class=first colspan={len(values)}>{html.escape(kind if is_control else f'{kind}, gamma')}</th>"
        for (kind, is_control), values in columns.items()
    )
    firsts = [(i == 0, value) for values in columns.values() for i, value in enumerate(values)]
    under = "".join(f"<th{' class=first' * first}>{html.escape(value)}</th>" for first, value in firsts)
    rows = "".join(_row(judged, columns, measure, largest) for judged in cells)
    head = f"<tr><th></th><th></th>{heads}</tr><tr><th></th><th>gamma 0</th>{under}</tr>"
    table = f"<table class=heat><thead>{head}</thead><tbody>{rows}</tbody></table>"
    return f'{_legend(measure, largest)}<div class="wide dense" tabindex="0">{table}</div>'


def _row(judged: Judged, columns: dict[tuple[str, bool], list[str]], measure: Measure, largest: float) -> str:
    by_place = {
        (series.name, value): (series, group.label)
        for series in judged.cell.series
        for value, group in zip(series.values, series.groups, strict=True)
    }
    cells = []
    for (kind, _), values in columns.items():
        for i, value in enumerate(values):
            series, label = by_place.get((kind, value), (None, ""))
            cells.append(_cell(judged, series, label, measure, largest, "first" * (i == 0)))
    return f"<tr><th>{html.escape(judged.cell.name)}</th>{_baseline(judged, measure)}{''.join(cells)}</tr>"


def _cell(judged: Judged, series: Series | None, label: str, measure: Measure, largest: float, kind: str) -> str:
    if label in judged.left_out:
        why = html.escape(judged.left_out[label])
        return f'<td class="out {kind}" title="{why}">left out</td>'
    gain = None if series is None else judged.gains(series).get(label)
    if gain is None:
        return f'<td class="{kind}">{MISSING}</td>'
    star = "*" if excludes_zero(gain) else ""
    color = POSITIVE if gain.value > 0 else NEGATIVE
    opacity = round(255 * STRONGEST * abs(gain.value) / largest) if largest else 0
    bounds = html.escape(f"{label}: {measure.difference(gain)} ({measure.difference_bounds(gain) or 'no interval'})")
    text = measure.difference(gain)
    return (
        f'<td class="{kind}{" clear" if star else ""}" style="background: {color}{opacity:02x}" title="{bounds}">'
        f"{text}{star}</td>"
    )


def _baseline(judged: Judged, measure: Measure) -> str:
    values = list(judged.scores.get("gamma 0", {}).values())
    mean = sum(values) / len(values) if values else math.nan
    return f"<td class=baseline>{measure.write(mean) if values else MISSING}</td>"


def _columns(cells: Sequence[Judged]) -> dict[tuple[str, bool], list[str]]:
    """The numbers of each penalty and control, from the least up; penalties come first."""
    found: dict[tuple[str, bool], dict[str, float]] = {}
    for judged in cells:
        for series in judged.cell.series:
            numbers = found.setdefault((series.name, series.is_control), {})
            numbers.update(zip(series.values, series.numbers, strict=True))
    ordered = sorted(found.items(), key=lambda item: item[0][1])
    return {kind: sorted(numbers, key=numbers.__getitem__) for kind, numbers in ordered}


def _legend(measure: Measure, largest: float) -> str:
    most = f"{100 * largest:.1f} points" if measure.is_share else f"{largest:.3g}"
    swatch = '<span class="ramp heat-ramp"></span>'
    return legend_of([(swatch, f"{measure.short} minus that of gamma 0, from −{most} to +{most}")])
