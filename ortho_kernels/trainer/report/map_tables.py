"""The tables of a map: recommendations with their evidence, what every setting scores, what the runs cost."""

import csv
import html
import io
import statistics
from collections.abc import Mapping, Sequence

from .findings import collapse_of
from .groups import groups_of
from .intervals import Interval
from .map_cells import WEIGHT_DECAY, Cell, cells_of
from .measures import COST, MISSING, REPRESENTATION, SCORES, Measure, present
from .recommended_gamma import Recommendation
from .record import RunRecord
from .tables import Body, Row, Table, interval_cell, value_cell
from .text_summary import aligned

SHOWN = (*SCORES[:2], *REPRESENTATION[:2])  # of every setting
IN_CSV = ("knn", "linear_probe", "representation_effective_rank", "representation_rankme", "penalty_share", "seconds")


def recommendation_table(
    found: Sequence[Recommendation], measure: Measure, others: Mapping[str, Sequence[Recommendation]]
) -> str:
    """A row for each cell and penalty, and below it in words what the row does not say.

    `others`: by their names, what other scores recommend in the same rows.
    """
    kinds = _kinds(found)
    columns = [
        "gamma",
        f"{measure.short} − gamma 0{', points' * measure.is_share}",
        *(f"− best {kind}" for kind in kinds),
        "on other seeds: − gamma 0",
        *["on other seeds: − best control"] * bool(kinds),
    ]
    rows = []
    for i, one in enumerate(found):
        by_others = {score: every[i] for score, every in others.items()}
        rows.append(Row(_named(one), [_recommended(one, by_others), *_evidence(one, kinds, measure)]))
    said = "".join(
        f"<li><b>{html.escape(_named(one))}:</b> {html.escape('; '.join(one.verdicts))}.</li>"
        for one in found
        if one.verdicts
    )
    return Table(columns, [Body(rows)]).render() + (f"<ul class=findings>{said}</ul>" if said else "")


def recommendation_lines(found: Sequence[Recommendation], measure: Measure) -> list[str]:
    """The same for a terminal, without the other seeds."""
    kinds = _kinds(found)
    lines = [["", "gamma", "seeds", f"{measure.short} − gamma 0", *(f"− best {kind}" for kind in kinds)]]
    for one in found:
        gains = [one.gain, *(one.over_controls.get(kind, ("", None))[1] for kind in kinds)]
        lines.append(
            [_named(one), one.value or "none", str(one.seeds), *(measure.difference_text(gain) for gain in gains)]
        )
    return [*aligned(lines), *(f"{_named(one)}: {'; '.join(one.verdicts)}." for one in found if one.verdicts)]


def settings_table(cells: Sequence[Cell]) -> str:
    """Means over seeds with Student's intervals, which hold for one setting at a time."""
    measures = present(SHOWN, [run for cell in cells for group in cell.groups for run in group.runs])
    bodies = [
        Body(
            [Row(group.label, [value_cell(group, measure) for measure in measures]) for group in cell.groups], cell.name
        )
        for cell in cells
    ]
    return Table([measure.short for measure in measures], bodies).render()


def cost_table(cells: Sequence[Cell]) -> str:
    """A row a cell."""
    rows = []
    for cell in cells:
        runs = [run for group in cell.groups for run in group.runs]
        seconds = [run.results["seconds"] for run in runs if "seconds" in run.results]
        shares = [value for run in runs if (value := COST[3].value(run)) is not None]
        rows.append(
            Row(
                cell.name,
                [
                    f"<td>{len(runs)}</td>",
                    f"<td>{sum(seconds) / 60:.0f}</td>",
                    f"<td>{statistics.median(seconds):.0f}</td>" if seconds else f"<td>{MISSING}</td>",
                    f"<td>{100 * statistics.median(shares):.1f} %</td>" if shares else f"<td>{MISSING}</td>",
                ],
            )
        )
    columns = ["runs", "all, minutes", "a run, s (median)", "the penalty's share of a step (median)"]
    return Table(columns, [Body(rows)]).render()


def map_csv(records: Sequence[RunRecord]) -> str:
    """A line for each run: its cell and setting, its seed, its scores and its cost."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["cell", "setting", "penalty", "gamma", "weight_decay", "seed", *IN_CSV, "collapsed", "folder"])
    for cell in cells_of(groups_of(records)):
        for group in cell.groups:
            for seed, run in group.by_seed.items():
                settings, results = run.results["settings"], run.results
                given = [settings.get(key, "") for key in ("penalty.name", "penalty.gamma", WEIGHT_DECAY)]
                figures = ["" if results.get(key) is None else results[key] for key in IN_CSV]
                collapsed = collapse_of(run) is not None
                writer.writerow([cell.name, group.label, *given, seed, *figures, collapsed, run.folder])
    return file.getvalue()


def _kinds(found: Sequence[Recommendation]) -> list[str]:
    """The kinds of controls."""
    return list(dict.fromkeys(kind for one in found for kind in one.over_controls))


def _recommended(one: Recommendation, by_others: Mapping[str, Recommendation]) -> str:
    """The gamma, and below it the best one where none is recommended, and what other scores recommend."""
    notes = [f"best: {one.shown_value}"] * bool(one.shown and not one.value)
    notes += [f"{score}: {other.value or 'none'}" for score, other in by_others.items()]
    under = "".join(f" <span class=interval>{html.escape(note)}</span>" for note in notes)
    return f"<td><b>{html.escape(one.value or 'none')}</b>{under}</td>"


def _evidence(one: Recommendation, kinds: Sequence[str], measure: Measure) -> list[str]:
    nothing = f"<td>{MISSING}</td>"
    cells = [nothing if one.gain is None else interval_cell(one.gain, measure)]
    for kind in kinds:
        name, interval = one.over_controls.get(kind, ("", None))
        over = f"over {name.removeprefix(f'{kind} ')}"
        cells.append(nothing if interval is None else interval_cell(interval, measure, note=over))
    cells.append(_on_other_seeds([other.gain for other in one.other_seeds], measure))
    if kinds:
        over_control = [other.over_control for other in one.other_seeds if other.over_control is not None]
        cells.append(_on_other_seeds(over_control, measure))
    return cells


def _on_other_seeds(values: Sequence[float], measure: Measure) -> str:
    """Their mean, and the least and the largest: seeds that share runs have no honest interval."""
    if not values:
        return f"<td>{MISSING}</td>"
    interval = Interval(sum(values) / len(values), min(values), max(values))
    text = measure.difference(interval)
    return f"<td>{text} <span class=interval>{measure.difference_bounds(interval)}</span></td>"


def _named(one: Recommendation) -> str:
    return f"{one.cell.name}, {one.penalty.name}"
