"""The report of one run or of several side by side: one HTML file that needs nothing beside it and no network."""

import base64
import html
from collections.abc import Callable, Sequence
from pathlib import Path

from . import plots, tables
from .atomic_writing import write_atomically
from .comparability import apart, cautions, parts_of
from .configuration import configuration, machines, run_list
from .findings import collapses, findings, of_many, unpaired
from .groups import Group, families_of, gamma_series, groups_of
from .later_scores import later_scores
from .lead import lead, reading, repeated, title
from .measures import COMPARED, COST, HEADLINES, REPRESENTATION, SCORES, TRAINING, Measure, present
from .record import RunRecord
from .statistics import contrasts_of
from .style import PAGE, STYLE
from .tables import difference_table, gamma_table, value_tables

FIGURES: tuple[tuple[str, Callable[[Sequence[RunRecord]], str], str], ...] = (
    (
        "Training",
        plots.training_curves,
        "In the middle the sum that the penalty is made of, before gamma; a baseline is measured in the same way. "
        "Spread: the standard deviation of the normalized projections times the root of their dimension; "
        "below the dotted line a run counts as collapsed.",
    ),
    (
        "While it trained",
        plots.running_scores,
        "Scores on a small sample, the same one each time (evaluation.every, evaluation.sample): kNN, effective rank and "
        "RankMe. Below, every layer's penalty before gamma, from the first layer (light) to the last (dark).",
    ),
    (
        "Representation",
        plots.representation_spectra,
        "Eigenvalues of the covariance of the final encoder's features, largest first, of test pictures or, where "
        "nothing is scored, of pretraining pictures. "
        "A curve that drops early uses few of its directions.",
    ),
    (
        "Weights",
        plots.weight_spectra,
        "Singular values of each penalized weight, read as a matrix, largest first. "
        "The dotted line is an orthogonal matrix: all values 1.",
    ),
)
TOPICS = {
    "Scores of the final encoder": SCORES,
    "Features of the final encoder": REPRESENTATION,
    "Weights and loss at the end": TRAINING,
}


def write_report(path: Path, runs: Sequence[RunRecord], missing: Sequence[str] = ()) -> None:
    """Writes the self-contained page, whole or not at all; `missing` says which runs are not in it, and why."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, render(runs, missing))


def render(runs: Sequence[RunRecord], missing: Sequence[str] = ()) -> str:
    groups = groups_of(runs)
    parts = parts_of(groups)
    alarms = [*apart(parts), *collapses(groups), *missing, *repeated(runs, groups)]
    sections = [section for name, part in parts.items() for section in _part(part, name if len(parts) > 1 else "")]
    sections += [
        _section("Configuration", configuration(groups)),
        _section("Machine", machines([run for group in groups for run in group.runs])),
        _section("Runs", run_list(groups)) if len(runs) > 1 else "",
    ]
    return PAGE.format(
        head="",
        title=html.escape(title(groups)),
        style=STYLE + tables.STYLE,
        lead=html.escape(" ".join(lead(groups))),
        alarms="\n".join(f'<p class="alarm">{html.escape(text)}</p>' for text in alarms),
        sections="\n".join(sections),
    )


def _part(groups: Sequence[Group], name: str) -> list[str]:
    """The sections of groups that were judged alike."""
    runs = [run for group in groups for run in group.runs]
    families = families_of(groups)
    later = later_scores(runs)
    found = {
        "Findings": _findings(groups),
        "Results": _results(groups),
        "Differences": _differences(groups, present(COMPARED, runs)),
        "Later evaluations": value_tables(families, {"Scores": later}) + _differences(groups, later) if later else "",
        "Gamma": _gammas(groups),
        **_figures(groups),
        "Cost": value_tables(families, {"Cost": COST}),
    }
    return [_section(f"{name}: {title}" if name else title, content) for title, content in found.items() if content]


def _findings(groups: Sequence[Group]) -> str:
    found = findings(groups)
    items = [f"<li><b>{html.escape(label)}.</b> {html.escape(text)}</li>" for label, text in found.items()]
    notes = [text for text in (unpaired(groups), *cautions(groups)) if text] if len(groups) > 1 else []
    return (f"<ul class=findings>{''.join(items)}</ul>" if items else "") + _notes(notes)


def _results(groups: Sequence[Group]) -> str:
    return value_tables(families_of(groups), TOPICS) + _notes([" ".join(reading(groups))])


def _differences(groups: Sequence[Group], measures: Sequence[Measure]) -> str:
    contrasts = contrasts_of(groups)
    if not contrasts or len(groups) == 2:  # which have theirs beside their values
        return ""
    legend = "Bold where the 95 % interval excludes 0, gray where it includes 0 or one seed gives none."
    return difference_table(contrasts, measures) + _notes([f"{legend} {of_many(contrasts, measures)}"])


def _gammas(groups: Sequence[Group]) -> str:
    measures = present(HEADLINES, [run for group in groups for run in group.runs])
    return "".join(
        f"<h3>{html.escape(series[0].settings.get('penalty.name', 'penalty'))}</h3>{gamma_table(series, groups, measures)}"
        for series in gamma_series(groups)
    )


def _figures(groups: Sequence[Group]) -> dict[str, str]:
    runs = [run for group in groups for run in group.runs]
    drawn = {title: (draw(runs), caption) for title, draw, caption in FIGURES}
    return {title: _figure(svg, title, caption) for title, (svg, caption) in drawn.items() if svg}


def _notes(sentences: Sequence[str]) -> str:
    return "".join(f'<p class="note">{html.escape(sentence)}</p>' for sentence in sentences)


def _section(title: str, content: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{content}</section>"


def _figure(svg: str, title: str, caption: str) -> str:
    # An image of its own keeps the ids inside one figure apart from those of the next.
    data = base64.b64encode(svg.encode()).decode()
    return (
        f'<figure><img alt="{html.escape(title)}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )
