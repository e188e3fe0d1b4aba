"""The page of a map: the recommended gamma of every cell with its evidence, and what each setting scores.

A map trains gammas and controls in several cells, each a method and a backbone, with the same seeds.
"""

import html
from collections.abc import Sequence
from pathlib import Path

from . import heat_map, tables
from .atomic_writing import write_atomically
from .collapse import advice
from .comparability import apart, parts_of
from .configuration import configuration, machines, run_list
from .findings import collapse_of
from .groups import Failure, Group, groups_of, with_failures
from .lead import lead
from .map_cells import Cell, cells_of
from .map_tables import cost_table, recommendation_lines, recommendation_table, settings_table
from .measures import Measure, present
from .plots.cell_panels import cell_panel
from .plots.panels import LARGE, side_by_side
from .recommended_gamma import JUDGES, judge, judged_by, recommendations
from .record import RunRecord
from .style import PAGE, STYLE, details, figure, note, section

MOST_OPEN = 12  # missing runs; a longer list is folded
RANKME = JUDGES["rankme"]
CELLS = (
    "Each cell is a method and a backbone: gamma 0, a penalty at several gammas, and the controls that it has to beat."
)
DONE = "Recommended is the smallest gamma within one standard error of the best, and only if it is told apart from gamma 0."
LIMITS = (
    "A map of few seeds can show neither gains smaller than its intervals, nor what other pictures or longer runs need."
)
READING = (
    "Differences are taken seed by seed; all settings of a cell share one estimate of the noise.",
    "Intervals (95 %) hold for all gammas of a penalty at once, or for all pairs of a gamma and a control of one kind. So "
    "they hold for the best ones too, though these were chosen for their scores.",
    "On other seeds: the gamma, or gamma 0, and the control are chosen without a seed and judged on it, each seed in turn. "
    "This is the gain without the luck of the choice. Below it are the least and the largest of the seeds.",
    "Rows are judged one by one: of 20 without any effect, one is told apart from gamma 0 on average, up or down.",
)
STARS = "* The interval of the difference excludes 0."
HATCHED = "Hatched: left out, since runs collapsed or failed, or seeds differ too much."
CAPTION = (
    "The mean of each setting with the interval of its difference to gamma 0. A bar that does not reach the horizontal "
    "line, gamma 0, is told apart from it. Dots beside it are its runs, less what their seed adds to every setting. Crosses "
    "are runs that are left out, arrows those beyond the axis. Each penalty has a scale of gamma of its own."
)
CAPTION_OF_RANKME = "RankMe counts the directions that the features use. Bars and dots as above."


def write_map(
    path: Path,
    records: Sequence[RunRecord],
    missing: Sequence[str] = (),
    score: str = "knn",
    failures: Sequence[Failure] = (),
) -> None:
    """Writes the self-contained page, whole or not at all.

    `missing` names runs that are not in it, with the reason. `score` is what gamma is judged by: knn, linear_probe or,
    without labels, rankme. A setting of which a run has failed is judged by none of its other seeds.
    Raises ValueError for another score, and where there is no record.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, render(records, missing, score, failures))


def map_lines(records: Sequence[RunRecord], score: str = "knn", failures: Sequence[Failure] = ()) -> list[str]:
    """The recommendations as lines of text, for a terminal."""
    groups = with_failures(groups_of(records), failures)
    return recommendation_lines(recommendations(groups, score), judge(score))


def render(records: Sequence[RunRecord], missing: Sequence[str], score: str, failures: Sequence[Failure]) -> str:
    if not records:
        raise ValueError("a map needs a finished run at least")
    measure, groups = judge(score), with_failures(groups_of(records), failures)
    cells = cells_of(groups)
    alarms = [*apart(parts_of(groups)), *filter(None, map(_collapsed, cells))]
    captions = {measure: CAPTION}
    captions.setdefault(RANKME, CAPTION_OF_RANKME)
    sections = {
        "Recommended gamma": _recommended(groups, score),
        **{f"What gamma does to {one.short}": _measured(cells, one, said) for one, said in captions.items()},
        "All settings": settings_table(cells),
        "Cost": cost_table(cells),
        "Not in the map": _missing(missing),
        "Configuration": configuration(groups),
        "Machine": machines(records),
        "Runs": run_list(groups),
    }
    return PAGE.format(
        head="",
        title=html.escape(_title(cells)),
        style=STYLE + tables.STYLE + heat_map.STYLE,
        lead=html.escape(" ".join([CELLS, *lead(groups)])),
        alarms="\n".join(f'<p class="alarm">{html.escape(text)}</p>' for text in alarms),
        sections="\n".join(section(title, content) for title, content in sections.items() if content),
    )


def _title(cells: Sequence[Cell]) -> str:
    named = " and ".join(cell.name for cell in cells) if len(cells) < 3 else f"{len(cells)} cells"
    return f"Map of gamma: {named}"


def _collapsed(cell: Cell) -> str:
    """Empty where no run of the cell has collapsed."""
    found = []
    for group in cell.groups:
        if seeds := [str(seed) for seed, run in group.by_seed.items() if collapse_of(run) is not None]:
            found.append(f"{group.label} (seed {', '.join(seeds)})")
    if not found:
        return ""
    method = cell.groups[0].settings.get("method.name")
    return f"{cell.name}: runs collapsed at {'; '.join(found)}. All of these but gamma 0 are left out. {advice(method)}"


def _recommended(groups: Sequence[Group], score: str) -> str:
    found = recommendations(groups, score)
    if not found:
        return note("No penalty has a finished run yet.")
    runs = [run for group in groups for run in group.runs]
    others = {
        measure.short: recommendations(groups, other)
        for other, measure in JUDGES.items()
        if other not in (score, "rankme") and present([measure], runs)
    }
    said = f"<p>{html.escape(DONE)} {html.escape(LIMITS)}</p>"
    return said + recommendation_table(found, judge(score), others) + "".join(map(note, READING))


def _measured(cells: Sequence[Cell], measure: Measure, caption: str) -> str:
    judged = [judged_by(cell, measure) for cell in cells]
    heat = heat_map.heat_map(judged, measure)
    said = [STARS] * ("*</td>" in heat) + [HATCHED] * any(one.left_out for one in judged)
    stars = note(" ".join(said)) if heat and said else ""
    drawn = side_by_side([panel for one in judged if (panel := cell_panel(one, measure)) is not None], LARGE)
    return heat + stars + (figure(drawn, measure.title, caption) if drawn else "")


def _missing(missing: Sequence[str]) -> str:
    if not missing:
        return ""
    items = "".join(f"<li>{html.escape(one)}</li>" for one in missing)
    count = f"{len(missing)} run{'s' * (len(missing) != 1)}"
    return details(count, f"<ul>{items}</ul>", is_open=len(missing) <= MOST_OPEN)
