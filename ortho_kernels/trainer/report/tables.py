"""Tables of a report: values with their intervals, differences with theirs, as HTML."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from .groups import Group
from .intervals import Interval
from .measures import MISSING, TOPICS, Measure, present
from .statistics import Contrast, excludes_zero, statistic

FEW_GROUPS = 3  # stand side by side, as columns
STYLE = """
.table { overflow-x: auto; margin: .8rem 0 1.2rem; }
.table table { min-width: 100%; width: auto; }
.table th:first-child, .table td:first-child { position: sticky; left: 0; background: var(--paper); }
.table thead th { vertical-align: bottom; font-weight: 600; }
.table td { white-space: nowrap; }
.table tbody + tbody tr:first-child > * { padding-top: 1rem; }
.table tr.family th { color: var(--soft); font-style: italic; border-bottom-color: var(--ink); }
.table td.text { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.interval { color: var(--soft); font-weight: 400; }
td.clear { font-weight: 600; }
td.unclear, td.unclear .interval { color: var(--soft); font-weight: 400; }
.findings li { max-width: 46rem; margin: .45rem 0; }
@media (max-width: 50rem) { .table th:first-child { max-width: 9rem; } .table th, .table td { padding: .3rem .5rem; }
  .findings { padding-left: 1.1rem; } }
@media print { .table { overflow: visible; } .table table { font-size: 9px; } .table td { white-space: normal; } }
"""


@dataclass(frozen=True)
class Row:
    title: str
    cells: Sequence[str]  # td elements
    kind: str = ""


@dataclass(frozen=True)
class Body:
    """Rows under a title of their own, if it has one."""

    rows: Sequence[Row]
    title: str = ""


@dataclass(frozen=True)
class Table:
    columns: Sequence[str]
    bodies: Sequence[Body] = field(default_factory=list)

    def render(self) -> str:
        head = "".join(f"<th>{html.escape(title)}</th>" for title in self.columns)
        bodies = "".join(self._body(body) for body in self.bodies)
        return f'<div class="table"><table><thead><tr><th></th>{head}</tr></thead>{bodies}</table></div>'

    def _body(self, body: Body) -> str:
        title = f"<th>{html.escape(body.title)}</th><td colspan={len(self.columns)}></td>"
        rows = [f"<tr class=family>{title}</tr>"] if body.title else []
        for row in body.rows:
            kind = f" class={row.kind}" if row.kind else ""
            rows.append(f"<tr{kind}><th>{html.escape(row.title)}</th>{''.join(row.cells)}</tr>")
        return f"<tbody>{''.join(rows)}</tbody>"


def text_cell(text: object) -> str:
    return f"<td class=text>{html.escape(str(text))}</td>"


def value_cell(group: Group, measure: Measure) -> str:
    """The mean over seeds or the single value, and its interval."""
    found = statistic(group, measure)
    if found is None:
        return f"<td>{MISSING}</td>"
    interval = found.interval
    text = measure.write(interval.value)
    if found.count > 1:
        spread = f"± {measure.write_half_width(interval)}" if math.isfinite(interval.half_width) else ""
    else:
        spread = f"({bounds(measure, interval)})" if math.isfinite(interval.half_width) else ""
    share = f"{found.count} of {len(group.runs)}" if found.count < len(group.runs) else ""
    return f"<td>{_with_note(text, f'{spread} {share}')}</td>"


def difference_cell(contrast: Contrast, measure: Measure) -> str:
    found = contrast.difference(measure)
    if found is None:
        return f"<td>{MISSING}</td>"
    interval = found.interval
    text = measure.write_difference(interval.value)
    if not math.isfinite(interval.half_width):
        return f'<td class="difference unclear">{text}</td>'
    kind = "clear" if excludes_zero(interval) else "unclear"
    spread = f"({measure.signed(interval.low)} to {measure.signed(interval.high)})"
    share = f"{found.count} of {contrast.seeds}" if found.count < contrast.seeds else ""
    return f'<td class="difference {kind}">{_with_note(text, f"{spread} {share}")}</td>'


def bounds(measure: Measure, interval: Interval) -> str:
    """Without the unit, which the value has."""
    return " to ".join(measure.write(value).removesuffix(" %") for value in (interval.low, interval.high))


def _with_note(text: str, note: str) -> str:
    note = note.strip()
    return f"{text} <span class=interval>{note}</span>" if note else text


def value_tables(families: Sequence[Sequence[Group]], topics: dict[str, Sequence[Measure]] = TOPICS) -> list[str]:
    """All measures. A few groups are columns of one table; more are rows, in a table for each topic."""
    groups = [group for family in families for group in family]
    runs = [run for group in groups for run in group.runs]
    found = {title: measures for title, every in topics.items() if (measures := present(every, runs))}
    if len(groups) <= FEW_GROUPS:
        bodies = [
            Body([_row(measure, groups) for measure in measures], title if len(found) > 1 else "")
            for title, measures in found.items()
        ]
        return [Table([group.label for group in groups], bodies).render()]
    return [
        f"<h3>{html.escape(title)}</h3>" * (len(found) > 1) + groups_as_rows(families, measures)
        for title, measures in found.items()
    ]


def _row(measure: Measure, groups: Sequence[Group]) -> Row:
    return Row(measure.title, [value_cell(group, measure) for group in groups], "headline" * measure.headline)


def groups_as_rows(families: Sequence[Sequence[Group]], measures: Sequence[Measure]) -> str:
    bodies = [
        Body([Row(group.label, [value_cell(group, measure) for measure in measures]) for group in family])
        for family in families
    ]
    return Table([measure.short for measure in measures], bodies).render()


def difference_table(contrasts: Sequence[Contrast], measures: Sequence[Measure]) -> str:
    """A row for each contrast; those with baselines stand above those with controls."""
    bodies = []
    for role in ("baseline", "control"):
        of_role = [contrast for contrast in contrasts if contrast.role == role]
        rows = [
            Row(
                f"{contrast.group.label} − {contrast.other.label}",
                [text_cell(contrast.seeds), *(difference_cell(contrast, measure) for measure in measures)],
            )
            for contrast in of_role
        ]
        if rows:
            bodies.append(Body(rows, f"Against the {role}"))
    return Table(["seeds", *(measure.short for measure in measures)], bodies).render()
