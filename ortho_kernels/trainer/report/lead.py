"""What a report is about, and how its figures are read, in sentences."""

from collections.abc import Sequence

from ..data.left_out import LeftOut
from .groups import Group, common_and_own, repeats_in, varied
from .measures import MISSING, SCORES
from .record import RunRecord
from .statistics import contrast_of_two, statistic

MOST_VARIED = 4  # settings that a sentence names
MOST_NAMED = 6  # runs


def title(groups: Sequence[Group]) -> str:
    runs = sum(len(group.runs) for group in groups)
    more = f" in {len(groups)} groups" if runs > len(groups) > 2 else ""
    return title_of([group.label for group in groups], runs) + more


def title_of(labels: Sequence[str], runs: int | None = None) -> str:
    """Two labels at most; else the number of runs."""
    if len(labels) > 2:
        return f"{runs or len(labels)} runs"
    common, own = common_and_own(labels)
    text = f"{common}: {' and '.join(own)}" if common else " and ".join(labels)
    return text if "=" in text.partition(" ")[0] else text[:1].upper() + text[1:]


def lead(groups: Sequence[Group]) -> list[str]:
    """How the runs were trained and judged, what was left out of their data, and the notes of their recipes."""
    runs = [run for group in groups for run in group.runs]
    notes = dict.fromkeys(run.results.get("note") or "" for run in runs)
    return [*_counts(groups), _training(runs), *left_out(runs), *filter(None, notes)]


def _counts(groups: Sequence[Group]) -> list[str]:
    counts = sorted({len(group.runs) for group in groups})
    if counts == [1]:
        return []
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return [f"{len(groups)} group{'s' * (len(groups) > 1)} of {seeds} runs, which differ in the seed alone."]


def _training(runs: Sequence[RunRecord]) -> str:
    steps, images = (_range([run.results[key] for run in runs]) for key in ("steps", "train_size"))
    judged = " or ".join(dict.fromkeys(_judged(run) for run in runs))
    return f"{steps} steps on {images} images; the final encoder (no best step is chosen), frozen, is {judged}."


def _judged(run: RunRecord) -> str:
    results = run.results
    if "knn" in results:
        return f"judged with {results['train_images']:,} labeled and {results['test_images']:,} test images"
    return f"looked at with {results['representation_images']:,} of these images, without labels and scores"


def left_out(runs: Sequence[RunRecord]) -> list[str]:
    """A sentence on the files that were not used, once where the runs agree."""
    said = {run.label: str(LeftOut(run.results.get("left_out"))) for run in runs}
    different = list(dict.fromkeys(said.values()))
    if len(different) < 2:
        return [sentence for sentence in different if sentence]
    return [f"{label}: {sentence or 'no file was left out.'}" for label, sentence in said.items()]


def missing_sentence(missing: Sequence[str]) -> list[str]:
    """Which runs are not in the report, and why."""
    if not missing:
        return []
    named = "; ".join(missing[:MOST_NAMED])
    more = f"; and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
    return [f"{len(missing)} {'run is' if len(missing) == 1 else 'runs are'} left out: {named}{more}."]


def repeated(runs: Sequence[RunRecord], groups: Sequence[Group]) -> list[str]:
    """That runs which another one repeats are not counted."""
    folders = ", ".join(run.folder.name for run in repeats_in(runs, groups))
    return [f"A seed counts once: a later run has all settings in common with {folders}."] if folders else []


def reading(groups: Sequence[Group]) -> list[str]:
    """What the intervals mean, and in what the groups differ."""
    sentences = [*_intervals(groups), *_what_differs(groups)]
    if (contrast := contrast_of_two(groups)) is not None:
        sentences.append(f"Differences are {contrast.title}, seed by seed.")
    seeds = {seed for group in groups for seed in group.by_seed}
    if len(groups) > 1 and len(seeds) == 1:
        sentences.append("They share one seed: repeat with others before a small difference is called an effect.")
    return sentences


def _intervals(groups: Sequence[Group]) -> list[str]:
    """Of the test set, and of the seeds."""
    several = any(len(group.runs) > 1 for group in groups)
    of_seeds = ["Means over seeds stand with ± their 95 % interval (Student's t)."] * several
    run = groups[0].runs[0]
    alone = [found for measure in SCORES[:1] if (found := statistic(Group("", (run,)), measure)) is not None]
    if not alone:
        nothing = (
            "Nothing is scored, since there are no labels. Ranks and spread tell whether the network has collapsed."
        )
        return [nothing, *of_seeds]
    points = f"± {100 * alone[0].interval.half_width:.1f} points (95 %, Wilson)"
    return [*of_seeds, f"The test images alone leave {points} on the score of a run."]


def _what_differs(groups: Sequence[Group]) -> list[str]:
    if len(groups) == 1:
        return []
    found = varied(groups)
    if len(found) > MOST_VARIED:
        return [f"The groups differ in {len(found)} settings, which the configuration lists."]
    named = (f"{key} ({', '.join(dict.fromkeys(map(_written, values)))})" for key, values in found.items())
    return [f"The groups differ in {', '.join(named) or 'no setting'} and in no other setting that all have."]


def _written(value: object) -> str:
    return MISSING if value is None else str(value)


def _range(values: Sequence[int]) -> str:
    least, most = min(values), max(values)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"
