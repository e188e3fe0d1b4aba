"""The headlines of a report as lines of text, for a terminal."""

from collections.abc import Sequence

from .comparability import apart, parts_of
from .findings import collapses
from .groups import Group, groups_of
from .lead import left_out, repeated
from .measures import HEADLINES, MISSING, SUMMARIZED, Measure, present
from .record import RunRecord
from .statistics import Contrast, contrast_of_two, contrasts_of, excludes_zero, statistic


def summary(runs: Sequence[RunRecord]) -> str:
    """Values of each group with their intervals over seeds, and differences to baselines and controls."""
    groups = groups_of(runs)
    taken = [run for group in groups for run in group.runs]
    parts = parts_of(groups)
    tables = {name: _table(part) for name, part in parts.items()}
    lines = [line for name, table in tables.items() for line in ([f"{name}:", *table, ""] if name else table)]
    notes = [*left_out(taken), *repeated(runs, groups), *apart(parts), *collapses(groups)]
    return "\n".join([*lines, *notes])


def _table(groups: Sequence[Group]) -> list[str]:
    """Of groups that were judged alike."""
    measures = present(SUMMARIZED, [run for group in groups for run in group.runs])
    lines = measures_as_lines(groups, measures) if len(groups) < 3 else groups_as_lines(groups, measures)
    return [*aligned(lines), *legend(lines)]


def measures_as_lines(groups: Sequence[Group], measures: Sequence[Measure]) -> list[list[str]]:
    """The cells of a table with a column a group; two groups have their difference beside them."""
    contrast = contrast_of_two(groups)
    lines = [["", *(group.label for group in groups), *["difference"] * (contrast is not None)]]
    for measure in measures:
        cells = [value_text(group, measure) for group in groups]
        if contrast is not None:
            cells.append(difference_text(contrast, measure, measure.difference_unit))
        lines.append([measure.title, *cells])
    return lines


def groups_as_lines(groups: Sequence[Group], measures: Sequence[Measure]) -> list[list[str]]:
    """The cells of a table with a column a measure: values, then differences to baselines and controls."""
    lines = [["", *(measure.short for measure in measures)]]
    lines += [[seeds_named(group), *(value_text(group, measure) for measure in measures)] for group in groups]
    return lines + contrasts_as_lines(groups, measures)


def contrasts_as_lines(groups: Sequence[Group], measures: Sequence[Measure]) -> list[list[str]]:
    """Differences stand where the headlines do."""
    return [
        [
            contrast.title,
            *(difference_text(contrast, measure) if measure in HEADLINES else "" for measure in measures),
        ]
        for contrast in contrasts_of(groups)
    ]


def seeds_named(group: Group) -> str:
    return group.label if len(group.runs) == 1 else f"{group.label}, {len(group.runs)} seeds"


def value_text(group: Group, measure: Measure) -> str:
    """The mean over seeds with its interval, or a run's value."""
    found = statistic(group, measure)
    if found is None:
        return MISSING
    spread = measure.half_width(found.interval) if found.count > 1 else ""
    return f"{measure.write(found.interval.value)} {spread}".rstrip()


def difference_text(contrast: Contrast, measure: Measure, unit: str = "") -> str:
    """With its interval, and a star where that excludes 0."""
    found = contrast.difference(measure)
    if found is None:
        return MISSING
    return measure.difference_text(found.interval, unit) + "*" * excludes_zero(found.interval)


def legend(lines: Sequence[Sequence[str]]) -> list[str]:
    """What the stars mean, if there is one."""
    stars = any(cell.endswith("*") for line in lines for cell in line)
    return ["* The 95 % interval of the difference excludes 0."] if stars else []


def aligned(lines: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Columns of cells, the first `left` of them to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join([*map(str.ljust, line[:left], widths), *map(str.rjust, line[left:], widths[left:])]) for line in lines
    ]
