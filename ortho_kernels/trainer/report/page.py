"""The report of one run or of several side by side: one HTML file that needs nothing beside it and no network."""

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
from .lead import lead, missing_sentence, reading, repeated, title
from .measures import COMPARED, COST, HEADLINES, REPRESENTATION, SCORES, TRAINING, Measure, present
from .record import RunRecord
from .statistics import Contrast, contrast_of_two, contrasts_of
from .style import PAGE, STYLE, figure, note, section
from .tables import difference_table, gamma_table, value_tables

FIGURES: tuple[tuple[str, Callable[[Sequence[Group]], str], str], ...] = (
    (
        "Training",
        plots.training_curves,
        "The penalty is the sum over the layers, before gamma; a baseline is measured in the same way. "
        "Spread: the standard deviation of the normalized projections times the root of their dimension; "
        "below the dotted line a run counts as collapsed.",
    ),
    (
        "While it trained",
        plots.running_scores,
        "Scores on a small sample, the same one each time (evaluation.every, evaluation.sample): kNN, effective rank and "
        "RankMe.",
    ),
    (
        "Reconstructions",
        plots.illustrations,
        "Test pictures, the same with the masked patches gray, and with these reconstructed. Where pixels are "
        "normalized, each reconstructed patch has the mean and the contrast of the true one.",
    ),
    (
        "Score against gamma",
        plots.score_against_gamma,
        "Means over seeds with their 95 % intervals (small dots: the runs), beside the baseline without a penalty. "
        "Gammas of different penalties are no one scale.",
    ),
    (
        "Layers over training",
        plots.layer_residuals,
        "Every layer's penalty before gamma, the mean over seeds. "
        "Panels of one penalty share their axis; different penalties cannot be compared.",
    ),
    (
        "Representation",
        plots.representation_spectra,
        "Eigenvalues of the covariance of the final encoder's features, largest first, of test pictures or, where "
        "nothing is scored, of pretraining pictures. "
        "A curve that drops early uses few of its directions. α is the slope on log axes (alpha-ReQ), without its sign.",
    ),
    (
        "Stages",
        plots.stage_spectra,
        "Eigenvalues of the covariance of the pooled features of each stage, relative to the largest.",
    ),
    (
        "Correlations",
        plots.correlation_maps,
        "Correlations between dimensions of the representation (evenly chosen ones, if there are many). "
        "Dimensions that say the same are blue or orange off the diagonal.",
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
    """Writes the self-contained page, whole or not at all; `missing` names runs that are not in it, with the reason."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, render(runs, missing))


def render(runs: Sequence[RunRecord], missing: Sequence[str] = ()) -> str:
    groups = groups_of(runs)
    parts = parts_of(groups)
    alarms = [*apart(parts), *collapses(groups), *missing_sentence(missing), *repeated(runs, groups)]
    sections = [one for name, part in parts.items() for one in _part(part, name if len(parts) > 1 else "")]
    sections += [
        section("Configuration", configuration(groups)),
        section("Machine", machines([run for group in groups for run in group.runs])),
        section("Runs", run_list(groups)) if len(runs) > 1 else "",
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
    figures = _figures(groups)
    found = {
        "Findings": _findings(groups),
        "Results": _results(groups),
        "Differences": _differences(groups, present(COMPARED, runs)),
        "Later evaluations": _later(groups, later) if later else "",
        "Score against gamma": figures.pop("Score against gamma", "") + _gammas(groups),
        **figures,
        "Cost": value_tables(families, {"Cost": COST}),
    }
    return [section(f"{name}: {title}" if name else title, content) for title, content in found.items() if content]


def _findings(groups: Sequence[Group]) -> str:
    found = findings(groups)
    items = [f"<li><b>{html.escape(label)}.</b> {html.escape(text)}</li>" for label, text in found.items()]
    notes = [text for text in (unpaired(groups), *cautions(groups)) if text] if len(groups) > 1 else []
    return (f"<ul class=findings>{''.join(items)}</ul>" if items else "") + _notes(notes)


def _results(groups: Sequence[Group]) -> str:
    table = value_tables(families_of(groups), TOPICS)
    contrast = contrast_of_two(groups)
    every = [measure for topic in TOPICS.values() for measure in topic]
    measures = present(every, [run for group in groups for run in group.runs])
    tested = [] if contrast is None else _legend([contrast], measures)
    return table + _notes([" ".join([*reading(groups), *tested])])


def _differences(groups: Sequence[Group], measures: Sequence[Measure]) -> str:
    contrasts = contrasts_of(groups)
    if not contrasts or len(groups) == 2:  # which have theirs beside their values
        return ""
    return difference_table(contrasts, measures) + _notes([" ".join(_legend(contrasts, measures))])


def _legend(contrasts: Sequence[Contrast], measures: Sequence[Measure]) -> list[str]:
    """How differences look, and how many there are."""
    tested = of_many(contrasts, measures)
    look = "Bold where the 95 % interval of a difference excludes 0, gray where it includes 0 or one seed gives none."
    return [look, tested] if tested else []


def _later(groups: Sequence[Group], measures: Sequence[Measure]) -> str:
    differences = _differences(groups, measures)
    values = value_tables(families_of(groups), {"Scores": measures})
    return f"{values}<h3>Differences</h3>{differences}" if differences else values


def _gammas(groups: Sequence[Group]) -> str:
    measures = present(HEADLINES, [run for group in groups for run in group.runs])
    return "".join(
        f"<h3>{html.escape(series[0].settings.get('penalty.name', 'penalty'))}</h3>{gamma_table(series, groups, measures)}"
        for series in gamma_series(groups)
    )


def _figures(groups: Sequence[Group]) -> dict[str, str]:
    drawn = {title: (draw(groups), caption) for title, draw, caption in FIGURES}
    return {title: figure(markup, title, caption) for title, (markup, caption) in drawn.items() if markup}


def _notes(sentences: Sequence[str]) -> str:
    return "".join(map(note, sentences))
