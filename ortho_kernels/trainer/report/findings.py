"""What the figures say, in sentences: no more than their intervals allow."""

import math
from collections.abc import Sequence

from .collapse import SIGNS, advice, collapse
from .groups import Group, common_and_own
from .measures import HEADLINES, Measure, result
from .record import RunRecord
from .statistics import Contrast, contrasts_of, excludes_zero


def findings(groups: Sequence[Group]) -> dict[str, str]:
    """For each group, by its label, what sets it apart from its baseline, and then from its control."""
    sentences: dict[str, list[str]] = {}
    for contrast in contrasts_of(groups):
        sentences.setdefault(contrast.group.label, []).append(compare(contrast))
    return {label: " ".join(found) for label, found in sentences.items()}


def compare(contrast: Contrast) -> str:
    """Group minus other in the headlines: what is higher, what is lower, what can't be told apart."""
    clear, unclear, single, undefined = [], [], [], []
    for measure in HEADLINES:
        found = contrast.difference(measure)
        if found is None:
            continue
        interval, name = found.interval, measure.short
        difference, bounds = measure.difference(interval) + measure.difference_unit, measure.difference_bounds(interval)
        if not math.isfinite(interval.value):
            undefined.append(name)
        elif not interval.half_width >= 0:  # a single seed
            single.append(f"{name} {difference}")
        elif excludes_zero(interval):
            way = "higher" if interval.value > 0 else "lower"
            clear.append(f"{name} is {way} by {difference[1:]} ({bounds})")
        else:
            unclear.append(f"{name} ({difference}, {bounds})")
    against = f"Against {_named(contrast)}"
    parts = []
    if clear:
        parts.append(f"{against}, {_listed(clear)}.")
    if unclear:
        parts.append(f"{'Not told apart' if clear else f'{against}, not told apart'}: {_listed(unclear)}.")
    if single:
        parts.append(f"{against}, so without an interval: {_listed(single)}.")
    if undefined:
        parts.append(f"{'' if parts else f'{against}: '}{_listed(undefined)} {_be(undefined)} not finite in a run.")
    return " ".join(parts) or f"{against} there is nothing to compare: they have no seed or measure in common."


def of_many(contrasts: Sequence[Contrast], measures: Sequence[Measure]) -> str:
    """How many differences have an interval, and how many would exclude 0 by chance alone; empty where none has one."""
    found = [contrast.difference(measure) for contrast in contrasts for measure in measures]
    intervals = [one.interval for one in found if one is not None and one.interval.half_width > 0]
    if not intervals:
        return ""
    clear = sum(map(excludes_zero, intervals))
    return (
        f"{len(intervals)} differences are tested, each by an interval of 95 %, and {clear} of these exclude 0. "
        f"Where nothing has an effect, {_number(len(intervals) / 20)} of {len(intervals)} do on average."
    )


def unpaired(groups: Sequence[Group]) -> str:
    """Names the groups that nothing can be said of; empty where there are none."""
    compared = {contrast.group.label for contrast in contrasts_of(groups) if contrast.role == "baseline"}
    alone = [group.label for group in groups if group.label not in compared and not group.is_baseline]
    if not alone:
        return ""
    verb = "has" if len(alone) == 1 else "have"
    return (
        f"{_listed(alone)} {verb} no baseline here, a group with the same settings and gamma 0. "
        "So nothing is said about what the penalty does there."
    )


def collapses(groups: Sequence[Group]) -> list[str]:
    """A sentence for each group with runs that have collapsed: which, the figure, and what to try."""
    sentences = []
    for group in groups:
        figures = {run.folder: figure for run in group.runs if (figure := collapse_of(run))}
        collapsed = [run for run in group.runs if run.folder in figures]
        if not collapsed:
            continue
        first = collapsed[0]
        if len(group.runs) == 1:
            said = f"{group.label} has collapsed{_stop(first)}: {figures[first.folder]}."
        else:
            seeds = ", ".join(str(seed) for seed, run in group.by_seed.items() if run.folder in figures)
            said = (
                f"{group.label}: {len(collapsed)} of {len(group.runs)} runs have collapsed (seed {seeds}), and its means "
                f"include them. Of the first, {figures[first.folder]}{_stop(first)}."
            )
        sentences.append(f"{said} {advice(first.results['settings'].get('method.name'))}")
    return sentences


def collapse_of(run: RunRecord) -> str | None:
    """The figure that shows that the run has collapsed, in words; None where none does."""
    return collapse({key: result(key)(run) for key, *_ in SIGNS})


def _stop(run: RunRecord) -> str:
    """Where it was stopped for that."""
    steps, planned = run.results["steps"], run.results.get("planned_steps", run.results["steps"])
    return f", and was stopped at step {steps} of {planned}" if steps < planned else ""


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _be(parts: Sequence[str]) -> str:
    return "is" if len(parts) == 1 else "are"


def _named(contrast: Contrast) -> str:
    seeds = f"{contrast.seeds} seed{'s' * (contrast.seeds != 1)}"
    _, (_, other) = common_and_own([contrast.group.label, contrast.other.label])
    role = {"baseline": "its baseline", "control": "the control"}[contrast.role]
    return f"{role} ({other}, {seeds})"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
