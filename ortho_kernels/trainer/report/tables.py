"""Tables of a report: values with their intervals, differences with theirs, as HTML."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .groups import Group, baseline_of, common_and_own
from .intervals import Interval
from .measures import MISSING, Measure, present
from .statistics import Contrast, contrast_of_two, excludes_zero, statistic

FEW_GROUPS = 3  # stand side by side, as columns
STYLE = """
.wide table { min-width: 100%; width: auto; }
.wide thead th { font-weight: 600; }
.wide td { white-space: nowrap; }
.wide td.text { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 5rem; }
.words thead th { text-align: left; }
.wide tbody + tbody tr:first-child > * { padding-top: 1.1rem; }
.wide tr.family th { position: static; max-width: none; color: var(--soft); font-style: italic; }
.family span { position: sticky; left: 0; display: inline-block; max-width: calc(100vw - 2.4rem); }
.wide .interval { color: var(--soft); font-weight: 400; }
.dense td, .dense th + th { padding-left: .45rem; padding-right: .45rem; }
.dense .interval { display: block; font-size: .88em; }
.wide td.difference.clear { color: var(--ink); font-weight: 600; }
.wide td.difference.unclear { color: var(--soft); font-weight: 400; }
.findings { padding-left: 1.2rem; }
.findings li { max-width: 46rem; margin: .45rem 0; }
@media (max-width: 50rem) { .wide th:first-child { max-width: 9.5rem; } .wide th + *, .wide td { padding: .3rem .45rem; }
  .wide .interval { display: block; font-size: .88em; } }
@media print { .wide table { font-size: 8.5px; } .wide td { white-space: normal; } }
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
    bodies: Sequence[Body] = ()
    corner: str = ""
    is_text: bool = False

    def render(self) -> str:
        head = "".join(f"<th>{html.escape(title)}</th>" for title in self.columns)
        bodies = "".join(self._body(body) for body in self.bodies)
        kind = "wide dense" if len(self.columns) > FEW_GROUPS else "wide"
        kind += " words" * self.is_text
        top = f"<tr><th>{html.escape(self.corner)}</th>{head}</tr>"
        return f'<div class="{kind}" tabindex="0"><table><thead>{top}</thead>{bodies}</table></div>'

    def _body(self, body: Body) -> str:
        title = f"<th colspan={1 + len(self.columns)}><span>{html.escape(body.title)}</span></th>"
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
    bounds = measure.bounds(interval)
    spread = measure.half_width(interval) if found.count > 1 else f"({bounds})" * bool(bounds)
    share = f"{found.count} of {len(group.runs)}" if found.count < len(group.runs) else ""
    return f"<td>{_with_note(text, f'{spread} {share}')}</td>"


def difference_cell(contrast: Contrast, measure: Measure, unit: str = "") -> str:
    found = contrast.difference(measure)
    if found is None:
        return f"<td>{MISSING}</td>"
    share = f"{found.count} of {contrast.seeds}" if found.count < contrast.seeds else ""
    return interval_cell(found.interval, measure, unit, share)


def interval_cell(interval: Interval, measure: Measure, unit: str = "", note: str = "") -> str:
    """A difference with its bounds, bold where they exclude 0."""
    kind = "clear" if excludes_zero(interval) else "unclear"
    bounds = measure.difference_bounds(interval)
    spread = f"({bounds})" * bool(bounds)
    text = _with_note(_with_note(measure.difference(interval) + unit, spread), note)
    return f'<td class="difference {kind}">{text}</td>'


def _with_note(text: str, note: str) -> str:
    note = note.strip()
    return f"{text} <span class=interval>{note}</span>" if note else text


def value_tables(families: Sequence[Sequence[Group]], topics: Mapping[str, Sequence[Measure]]) -> str:
    """A few groups are the columns of one table, two of them beside their difference; more are rows, a table a topic."""
    groups = [group for family in families for group in family]
    runs = [run for group in groups for run in group.runs]
    found = {title: measures for title, every in topics.items() if (measures := present(every, runs))}
    if len(groups) > FEW_GROUPS:
        return "".join(
            f"<h3>{html.escape(title)}</h3>" * (len(topics) > 1) + groups_as_rows(families, measures)
            for title, measures in found.items()
        )
    contrast = contrast_of_two(groups)
    bodies = [
        Body([_row(measure, groups, contrast) for measure in measures], title if len(topics) > 1 else "")
        for title, measures in found.items()
    ]
    common, own = common_and_own([group.label for group in groups])
    return Table([*own, *["difference"] * (contrast is not None)], bodies, corner=common).render()


def _row(measure: Measure, groups: Sequence[Group], contrast: Contrast | None) -> Row:
    cells = [value_cell(group, measure) for group in groups]
    if contrast is not None:
        cells.append(difference_cell(contrast, measure, measure.difference_unit))
    return Row(measure.title, cells, "headline" * measure.headline)


def groups_as_rows(families: Sequence[Sequence[Group]], measures: Sequence[Measure]) -> str:
    bodies = []
    for family in families:
        common, own = common_and_own([group.label for group in family])
        cells = ([value_cell(group, measure) for measure in measures] for group in family)
        bodies.append(Body([Row(label, row) for label, row in zip(own, cells, strict=True)], common))
    return Table([measure.short for measure in measures], bodies).render()


def difference_table(contrasts: Sequence[Contrast], measures: Sequence[Measure]) -> str:
    """A row for each contrast, under what it is against: a baseline, or after these a control."""
    bodies = []
    for role, other in _compared_with(contrasts):
        against = [contrast for contrast in contrasts if contrast.role == role and contrast.other is other]
        common, (other_label, *labels) = common_and_own([other.label, *(contrast.group.label for contrast in against)])
        most = max(contrast.seeds for contrast in against)
        rows = []
        for label, contrast in zip(labels, against, strict=True):
            fewer = f" ({_seeds(contrast.seeds)})" if contrast.seeds < most else ""
            rows.append(Row(label + fewer, [difference_cell(contrast, measure) for measure in measures]))
        title = f"against the {role} ({other_label}, {_seeds(most)} in common)"
        bodies.append(Body(rows, f"{common}: {title}" if common else title[0].upper() + title[1:]))
    units = [f"{measure.short}, points" if measure.is_share else measure.short for measure in measures]
    return Table(units, bodies).render()


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count != 1)}"


def _compared_with(contrasts: Sequence[Contrast]) -> list[tuple[str, Group]]:
    """The baselines and controls, each once."""
    found = {(contrast.role, id(contrast.other)): contrast for contrast in contrasts}
    return [(contrast.role, contrast.other) for contrast in found.values()]


def gamma_table(series: Sequence[Group], groups: Sequence[Group], measures: Sequence[Measure]) -> str:
    """A row a gamma, from the baseline up: each measure, and what it has gained."""
    baseline = baseline_of(series[0], groups)
    rows = []
    for group in [*([baseline] if baseline else []), *series]:
        cells = []
        for measure in measures:
            cells.append(value_cell(group, measure))
            if baseline:
                own = group is baseline
                cells.append("<td></td>" if own else difference_cell(Contrast(group, baseline, "baseline"), measure))
        rows.append(Row(f"{group.gamma:g}", cells))
    columns = [title for measure in measures for title in [measure.short, *["− baseline"] * (baseline is not None)]]
    return Table(columns, [Body(rows)], corner="gamma").render()
