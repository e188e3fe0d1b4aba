"""What the runs of a report were given, what they ran on, and where they are."""

import html
import json
from collections.abc import Sequence
from typing import Any

from .collapse import SIGNS, collapse
from .groups import Group, varied
from .measures import MISSING, SCORES, present, result
from .record import RunRecord
from .style import details
from .tables import Body, Row, Table, text_cell


def configuration(groups: Sequence[Group]) -> str:
    """One configuration as it was given, and what is different in the other groups."""
    first = groups[0]
    seeds = f", seed {next(iter(first.by_seed))}" if len(first.runs) > 1 else ""
    full = details(f"{first.label}{seeds}: all options", f"<pre>{html.escape(first.runs[0].configuration)}</pre>")
    if len(groups) == 1:
        return full
    return f"{_differences(groups)}{full}"


def _differences(groups: Sequence[Group]) -> str:
    """The longer side stands below."""
    found = varied(groups)
    labels = [group.label for group in groups]
    if not found:
        return '<p class="note">The groups differ in no setting.</p>'
    written = {key: [_written(value) for value in values] for key, values in found.items()}
    if len(found) > len(groups):
        rows = [Row(key, [text_cell(value) for value in values]) for key, values in written.items()]
        table = Table(labels, [Body(rows)], is_text=True)
    else:
        across = zip(*written.values(), strict=True)
        rows = [
            Row(label, [text_cell(value) for value in values]) for label, values in zip(labels, across, strict=True)
        ]
        table = Table(list(found), [Body(rows)], is_text=True)
    return f'<p class="note">The groups differ in these settings, and in no other that all have.</p>{table.render()}'


def machines(runs: Sequence[RunRecord]) -> str:
    """What they ran on: a column for each machine or setup among them."""
    found: list[dict[str, Any]] = []
    counts: list[int] = []
    for run in runs:
        if run.results["machine"] not in found:
            found.append(run.results["machine"])
            counts.append(0)
        counts[found.index(run.results["machine"])] += 1
    columns = [f"{count} run{'s' * (count != 1)}" for count in counts]
    keys = dict.fromkeys(key for machine in found for key in machine)
    rows = [Row(key, [text_cell(machine.get(key, MISSING)) for machine in found]) for key in keys]
    note = "" if len(found) == 1 else '<p class="note">Times of different machines do not compare.</p>'
    return note + Table(columns, [Body(rows)], is_text=True).render()


def run_list(groups: Sequence[Group]) -> str:
    """Every run: its folder, its seed and its scores."""
    measures = present(SCORES[:2], [run for group in groups for run in group.runs])
    rows = []
    for group in groups:
        for seed, run in group.by_seed.items():
            values = [measure.value(run) for measure in measures]
            state = "collapsed" if collapse({key: result(key)(run) for key, *_ in SIGNS}) else ""
            cells = [
                text_cell(MISSING if seed is None else seed),
                *(f"<td>{MISSING if v is None else m.write(v)}</td>" for m, v in zip(measures, values, strict=True)),
                f"<td>{run.results.get('steps', MISSING)}</td>",
                text_cell(f"{run.folder.name} {state}".strip()),
            ]
            rows.append(Row(group.label, cells))
    columns = ["seed", *(measure.short for measure in measures), "steps", "folder"]
    return details(f"{len(rows)} run{'s' * (len(rows) != 1)}", Table(columns, [Body(rows)]).render())


def _written(value: Any) -> str:
    if isinstance(value, str):
        return value
    return MISSING if value is None else json.dumps(value)
