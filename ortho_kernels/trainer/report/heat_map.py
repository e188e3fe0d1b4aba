"""What every setting of every cell makes better or worse than gamma 0: a table whose colors say how much."""

import html
from collections.abc import Sequence

from .intervals import Interval
from .map_cells import BASELINE
from .measures import MISSING, Measure
from .palette import NEGATIVE, POSITIVE
from .plots.panels import legend_of
from .recommended_gamma import Judged
from .statistics import excludes_zero

Columns = dict[tuple[str, bool], list[str]]  # numbers by the name of a series, and whether that is a control
GAP = "<td class=gap></td>"
STRONGEST = 0.62  # opacity at the largest difference, on which text can still be read
STYLE = f"""
.heat td, .heat thead th {{ text-align: center; padding: .38rem .5rem; white-space: nowrap; }}
.heat thead tr:first-child th {{ border-bottom: 0; color: var(--soft); font-weight: 400; padding-bottom: 0; }}
.heat thead th:first-child {{ text-align: left; padding-left: 0; }}
.heat tbody td {{ border-left: 1px solid var(--paper); border-bottom-color: var(--paper); }}
.heat tbody th {{ border-bottom-color: var(--paper); }}
.heat .gap {{ border: 0; padding: 0; min-width: .7rem; }}
.heat td.baseline {{ color: var(--soft); }}
.heat td.clear {{ font-weight: 700; }}
.heat td.out {{ color: var(--soft); background: repeating-linear-gradient(45deg, transparent 0 4px, var(--line) 4px 5px); }}
.legend .heat-ramp {{ width: 8rem; background: linear-gradient(90deg, {NEGATIVE}9e, transparent, {POSITIVE}9e); }}
"""


def heat_map(cells: Sequence[Judged], measure: Measure) -> str:
    """A row a cell, a column a setting; empty where there is no difference to show."""
    gains = [gain for judged in cells for series in judged.cell.series for gain in judged.gains(series).values()]
    if not gains:
        return ""
    columns = _columns(cells)
    largest = max(abs(gain.value) for gain in gains)
    kinds = "".join(
        f"{GAP}<th colspan={len(values)}>{html.escape(name if is_control else f'{name}, gamma')}</th>"
        for (name, is_control), values in columns.items()
    )
    numbers = "".join(
        GAP + "".join(f"<th>{html.escape(value)}</th>" for value in values) for values in columns.values()
    )
    head = f"<tr><th></th><th></th>{kinds}</tr><tr><th></th><th>gamma 0</th>{numbers}</tr>"
    rows = "".join(_row(judged, columns, measure, largest) for judged in cells)
    table = f"<table class=heat><thead>{head}</thead><tbody>{rows}</tbody></table>"
    return f'{_legend(measure, largest)}<div class="wide dense" tabindex="0">{table}</div>'


def _columns(cells: Sequence[Judged]) -> Columns:
    """Of each penalty, then of each control, the numbers that any cell has, from the least up."""
    found: dict[tuple[str, bool], dict[str, float]] = {}
    for judged in cells:
        for series in judged.cell.series:
            numbers = found.setdefault((series.name, series.is_control), {})
            numbers.update(zip(series.values, series.numbers, strict=True))
    ordered = sorted(found.items(), key=lambda item: item[0][1])
    return {kind: sorted(numbers, key=numbers.__getitem__) for kind, numbers in ordered}


def _row(judged: Judged, columns: Columns, measure: Measure, largest: float) -> str:
    gains = {name: gain for series in judged.cell.series for name, gain in judged.gains(series).items()}
    cells = [_baseline(judged, measure)]
    for (name, _), values in columns.items():
        cells.append(GAP)
        for label in (f"{name} {value}" for value in values):
            if label in judged.left_out:
                cells.append(f'<td class=out title="{html.escape(judged.left_out[label])}">left out</td>')
            elif label in gains:
                cells.append(_gain(label, gains[label], measure, largest))
            else:
                cells.append(f"<td>{MISSING}</td>")
    return f"<tr><th>{html.escape(judged.cell.name)}</th>{''.join(cells)}</tr>"


def _gain(label: str, gain: Interval, measure: Measure, largest: float) -> str:
    color = POSITIVE if gain.value > 0 else NEGATIVE
    opacity = round(255 * STRONGEST * abs(gain.value) / largest) if largest else 0
    text, bounds = measure.difference(gain), measure.difference_bounds(gain) or "no interval"
    title = html.escape(f"{label}: {text} ({bounds})")
    look = f'style="background: {color}{opacity:02x}" title="{title}"'
    return f"<td class=clear {look}>{text}*</td>" if excludes_zero(gain) else f"<td {look}>{text}</td>"


def _baseline(judged: Judged, measure: Measure) -> str:
    values = judged.scores.get(BASELINE, {}).values()
    return f"<td class=baseline>{measure.write(sum(values) / len(values)) if values else MISSING}</td>"


def _legend(measure: Measure, largest: float) -> str:
    most = f"{100 * largest:.1f} points" if measure.is_share else f"{largest:.3g}"
    swatch = '<span class="ramp heat-ramp"></span>'
    return legend_of([(swatch, f"{measure.short} minus that of gamma 0, from −{most} to +{most}")])
