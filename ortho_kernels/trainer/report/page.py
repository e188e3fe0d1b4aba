"""The report of one run or of several side by side: one HTML file that needs nothing beside it and no network."""

import html
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..data.left_out import LeftOut
from . import plots
from .atomic_writing import write_atomically
from .collapse import SIGNS, advice, collapse
from .groups import Group, groups_of
from .record import RunRecord
from .style import PAGE, STYLE, figure


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _number(value: float) -> str:
    return f"{value:.4g}"


# Key in results.json, what it is called, how it is written, whether it is a headline.
ROWS: tuple[tuple[str, str, Callable[[float], str], bool], ...] = (
    ("knn", "kNN on frozen features", _percent, True),
    ("linear_probe", "Linear probe on frozen features", _percent, True),
    ("raw_pixels_knn", "kNN on raw pixels (nothing learned)", _percent, False),
    ("chance", "Most frequent class", _percent, False),
    ("representation_effective_rank", "Effective rank of the feature covariance", _number, True),
    ("representation_rankme", "RankMe of the features", _number, False),
    ("weights_effective_rank", "Effective rank of the weights (mean share of full rank)", _percent, False),
    ("penalty_raw", "Penalty before gamma, at the end", _number, False),
    ("loss", "Loss of the method at the end", _number, False),
    ("spread", "Spread of projections at the end (0: collapsed)", _number, False),
    ("representation_spread", "Spread of features (0: collapsed)", _number, False),
    ("images_per_second", "Images per second", _number, False),
    ("step_ms", "Training step, median (ms)", _number, False),
    ("penalty_ms", "of which penalty, forward and backward (ms)", _number, False),
    ("penalty_share", "The penalty's share of the step", _percent, True),
    ("seconds", "Time from first step to last result (s)", _number, False),
)


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


def write_report(path: Path, runs: Sequence[RunRecord]) -> None:
    """Writes the self-contained page, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, render(runs))


def summary(runs: Sequence[RunRecord]) -> str:
    """The headlines and raw pixels as lines of text, for a terminal."""
    shown = [row for row in ROWS if row[3] or row[0] == "raw_pixels_knn"]
    lines = [["", *[run.label for run in runs]]]
    for key, title, write, _ in shown:
        values = [_value(run, key) for run in runs]
        if all(value is None for value in values):
            continue
        lines.append([title, *["–" if value is None else write(value) for value in values]])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def aligned(line: list[str]) -> str:
        title, *cells = line
        return "  ".join([title.ljust(widths[0]), *map(str.rjust, cells, widths[1:])])

    return "\n".join([*map(aligned, lines), *_left_out(runs), *_collapses(runs)])


def render(runs: Sequence[RunRecord]) -> str:
    sections = [
        _section("Results", _table(runs), _reading(runs)),
        *_figures(runs),
        _section("Configuration", *[_configuration(run) for run in runs]),
        _section("Machine", _machine(runs)),
    ]
    return PAGE.format(
        head="",
        title=html.escape(title_of([run.label for run in runs])),
        style=STYLE,
        lead=_lead(runs),
        alarms="\n".join(f'<p class="alarm">{html.escape(text)}</p>' for text in _collapses(runs)),
        sections="\n".join(sections),
    )


def title_of(labels: Sequence[str]) -> str:
    title = " and ".join(labels) if len(labels) < 3 else f"{len(labels)} runs"
    return title[:1].upper() + title[1:]


def _figures(runs: Sequence[RunRecord]) -> list[str]:
    groups = groups_of(runs)
    drawn = [(title, draw(groups), caption) for title, draw, caption in FIGURES]
    return [_section(title, figure(markup, title, caption)) for title, markup, caption in drawn if markup]


def _lead(runs: Sequence[RunRecord]) -> str:
    first = runs[0].results
    if "knn" in first:
        judged = f"judged with {first['train_images']:,} labeled and {first['test_images']:,} test images"
    else:
        judged = f"looked at with {first['representation_images']:,} of these images, without labels and scores"
    sentences = [f"{first['steps']:,} steps on {first['train_size']:,} images; the final encoder, frozen, is {judged}."]
    return html.escape(" ".join([*sentences, *_left_out(runs), first.get("note") or ""]).rstrip())


def _left_out(runs: Sequence[RunRecord]) -> list[str]:
    """A sentence on the files that were not used, once where the runs agree."""
    said = {run.label: str(LeftOut(run.results.get("left_out"))) for run in runs}
    different = list(dict.fromkeys(said.values()))
    if len(different) < 2:
        return [sentence for sentence in different if sentence]
    return [f"{label}: {sentence or 'no file was left out.'}" for label, sentence in said.items()]


def _collapses(runs: Sequence[RunRecord]) -> list[str]:
    """A sentence for each run that has collapsed: the figure, and what to try."""
    sentences = []
    for run in runs:
        if figure := collapse({key: _value(run, key) for key, *_ in SIGNS}):
            sentences.append(
                f"{run.label} has collapsed{_stop(run)}: {figure}. {advice(run.results['settings'].get('method.name'))}"
            )
    return sentences


def _stop(run: RunRecord) -> str:
    """Where it was stopped for that."""
    steps, planned = run.results["steps"], run.results.get("planned_steps", run.results["steps"])
    return f", and was stopped at step {steps} of {planned}" if steps < planned else ""


def _reading(runs: Sequence[RunRecord]) -> str:
    score = runs[0].results.get("knn")
    if score is None:
        text = "Nothing is scored, since there are no labels. Ranks and spread tell whether the network has collapsed."
    else:
        error = 1.96 * math.sqrt(score * (1 - score) / runs[0].results["test_images"])
        text = f"The test set alone leaves ± {100 * error:.1f} points (95 %) on each score."
    if len(runs) > 1:
        text += f" The runs differ in {_varied(runs)} and in nothing else."
        if len({run.results["settings"].get("seed") for run in runs}) == 1:
            text += " They share one seed: repeat with others before a small difference is called an effect."
    return f'<p class="note">{html.escape(text)}</p>'


def _varied(runs: Sequence[RunRecord]) -> str:
    """The settings in which the runs differ, with their values."""
    settings = [run.results["settings"] for run in runs]
    keys = sorted(set().union(*settings))
    varied = {key: list(dict.fromkeys(str(s.get(key, "absent")) for s in settings)) for key in keys}
    return (
        ", ".join(f"{key} ({', '.join(values)})" for key, values in varied.items() if len(values) > 1) or "no setting"
    )


def _table(runs: Sequence[RunRecord]) -> str:
    pair = len(runs) == 2
    labels = [run.label for run in runs] + ["difference"] * pair
    head = "".join(f"<th>{html.escape(label)}</th>" for label in labels)
    body = []
    for key, title, write, headline in ROWS:
        values = [_value(run, key) for run in runs]
        if all(value is None for value in values):
            continue
        cells = "".join(f"<td>{'–' if value is None else write(value)}</td>" for value in values)
        if pair:
            cells += f'<td class="difference">{_difference(values, write)}</td>'
        body.append(f"<tr{' class=headline' * headline}><th>{html.escape(title)}</th>{cells}</tr>")
    table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return f'<div class="wide" tabindex="0">{table}</div>'


def _value(run: RunRecord, key: str) -> float | None:
    """From the results, or else the last value of the curve; a run without a penalty has no cost of one."""
    if key in ("penalty_ms", "penalty_share") and run.results["settings"].get("penalty.gamma") == 0:
        return None
    if key in run.results:
        return run.results[key]
    curve = run.metrics.get(key)
    return curve[-1] if curve else None


def _difference(values: Sequence[float | None], write: Callable[[float], str]) -> str:
    first, second = values
    if first is None or second is None or first == second:
        return ""
    return ("+" if second > first else "−") + write(abs(second - first)).replace("%", "points")


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{''.join(parts)}</section>"


def _configuration(run: RunRecord) -> str:
    return (
        f"<details><summary>{html.escape(run.label)} ({html.escape(run.folder.name)})</summary>"
        f"<pre>{html.escape(run.configuration)}</pre></details>"
    )


def _machine(runs: Sequence[RunRecord]) -> str:
    machines: list[dict[str, Any]] = []
    for run in runs:
        if run.results["machine"] not in machines:
            machines.append(run.results["machine"])
    rows = "".join(
        f"<tr><th>{html.escape(key)}</th>" + "".join(f"<td>{html.escape(str(m[key]))}</td>" for m in machines) + "</tr>"
        for key in machines[0]
    )
    return f"<table><tbody>{rows}</tbody></table>"
