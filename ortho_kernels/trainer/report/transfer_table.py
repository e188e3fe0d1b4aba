"""The table of a transfer: encoders, or groups of seeds, by data sets; and its scores one by one."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .groups import Group, groups_of, repeats_in
from .measures import MISSING, Measure
from .record import RunRecord
from .statistics import contrast_of_two, contrasts_of, statistic
from .text_summary import aligned, difference_text, seeds_named

WIDTH = 120  # of the table in characters
COLUMNS = (
    *("network", "accuracy", "low", "high", "correct", "test_images", "train_images", "classes", "chance"),
    *("labels", "chosen", "data_origin", "step"),
)  # of a score, as its file names them


@dataclass(frozen=True)
class Score:
    """What one encoder got on one data set by one protocol, or why there is nothing."""

    run: RunRecord
    protocol: str
    data: str
    content: dict[str, Any] | None = None  # of the evaluation's file
    file: Path | None = None
    error: str = ""


def describe(score: Score) -> str:
    """In one line, while others are still to come."""
    if score.content is None:
        return f"{score.data}, {score.run.label}, {score.protocol}: not scored"  # the reason follows the table
    return f"{score.data}, {score.run.label}, {score.protocol}: {score.content['accuracy']:.2%}"


def format_transfer(scores: Sequence[Score]) -> str:
    """A table for each protocol, then what was scored on which pictures, and what was not and why."""
    protocols = dict.fromkeys(score.protocol for score in scores)
    tables = [_table(name, [score for score in scores if score.protocol == name]) for name in protocols]
    return "\n\n".join([*tables, "\n".join([*_pictures(scores), *_cautions(scores), *_errors(scores)])])


def as_csv(scores: Sequence[Score]) -> str:
    """A line for each score, with the reason where there is none."""
    groups = groups_of(_runs(scores))
    labels = {id(run): group.label for group in groups for run in group.runs}
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["group", "run", "seed", "protocol", "data", *COLUMNS, "file", "error"])
    for score in scores:
        content = score.content or {}
        chosen = "; ".join(f"{key}={value:.6g}" for key, value in content.get("chosen", {}).items())
        values = [(content | {"chosen": chosen}).get(column, "") for column in COLUMNS]
        first = [
            labels.get(id(score.run), score.run.label),
            score.run.folder,
            score.run.results["settings"].get("seed", ""),
        ]
        writer.writerow([*first, score.protocol, score.data, *values, score.file or "", score.error])
    return file.getvalue()


def _table(protocol: str, scores: Sequence[Score]) -> str:
    runs = _runs(scores)
    groups = groups_of(runs)
    found = {(id(score.run), score.data): score.content for score in scores if score.content is not None}
    sets = [data for data in dict.fromkeys(score.data for score in scores) if any(key[1] == data for key in found)]
    if not sets:
        return f"{protocol}: nothing could be scored."
    measures = [_accuracy(data, found) for data in sets]
    common = [data for data in sets if all((id(run), data) in found for run in runs)]
    if len(common) > 1:
        title = "mean" if len(common) == len(sets) else f"mean of {', '.join(common)}"
        measures.append(Measure(title, title, lambda run: _mean_accuracy(run, common, found), is_share=True))
    lines = [[f"{protocol}: accuracy in %", *(measure.short for measure in measures)]]
    lines += [[seeds_named(group), *(_value(group, measure) for measure in measures)] for group in groups]
    contrasts = contrasts_of(groups) or [pair for pair in [contrast_of_two(groups)] if pair is not None]
    lines += [[pair.title, *(difference_text(pair, measure) for measure in measures)] for pair in contrasts]
    chances = [_chance(data, found) for data in sets]
    lines.append(["most frequent class (chance)", *chances, *[""] * (len(measures) - len(sets))])
    return "\n\n".join("\n".join(aligned(block)) for block in _blocks(lines))


def _blocks(lines: Sequence[Sequence[str]]) -> Iterator[list[list[str]]]:
    """The table in parts that a terminal holds, one below another; each has the first column."""
    first, *columns = zip(*lines, strict=True)
    while columns:
        block, width = [first], max(map(len, first))
        while columns and (len(block) == 1 or width + 2 + max(map(len, columns[0])) <= WIDTH):
            width += 2 + max(map(len, columns[0]))
            block.append(columns.pop(0))
        yield [list(line) for line in zip(*block, strict=True)]


def _runs(scores: Sequence[Score]) -> list[RunRecord]:
    return list({id(score.run): score.run for score in scores}.values())


def _accuracy(data: str, found: dict[tuple[int, str], dict[str, Any]]) -> Measure:
    def read(key: str) -> Any:
        return lambda run: found.get((id(run), data), {}).get(key)

    return Measure(data, data, read("accuracy"), is_share=True, trials=read("test_images"))


def _mean_accuracy(run: RunRecord, sets: Sequence[str], found: dict[tuple[int, str], dict[str, Any]]) -> float:
    return sum(found[id(run), data]["accuracy"] for data in sets) / len(sets)


def _value(group: Group, measure: Measure) -> str:
    """Over seeds the mean and half its interval; of one run the bounds of Wilson's."""
    found = statistic(group, measure)
    if found is None:
        return MISSING
    value = measure.write(found.interval.value).removesuffix(" %")
    if found.count > 1:
        return f"{value} {measure.half_width(found.interval)}".rstrip()
    bounds = measure.bounds(found.interval)
    return f"{value} ({bounds})" if bounds else value


def _chance(data: str, found: dict[tuple[int, str], dict[str, Any]]) -> str:
    shares = [content["chance"] for (_, name), content in found.items() if name == data]
    least, most = (f"{100 * share:.2f}" for share in (min(shares), max(shares)))
    return least if least == most else f"{least} to {most}"  # seeds draw test pictures


def _pictures(scores: Sequence[Score]) -> list[str]:
    sizes: dict[str, list[str]] = {}
    for score in scores:
        if score.content is not None:
            fit, test, classes = (score.content[key] for key in ("train_images", "test_images", "classes"))
            size = f"{fit:,} to fit on, {test:,} to test on, {classes} classes"
            if size not in sizes.setdefault(score.data, []):
                sizes[score.data].append(size)
    scored = [f"{data} ({' or '.join(each)})" for data, each in sizes.items()]
    return [f"Scored: {'; '.join(scored)}."] if scored else []


def _errors(scores: Sequence[Score]) -> list[str]:
    """Each reason once, with the encoders where it is not that of all."""
    every = _runs(scores)
    failed: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        if score.error:
            failed.setdefault((score.data, score.error), []).append(score)
    lines = []
    for (data, error), theirs in failed.items():
        runs = _runs(theirs)
        whose = "" if len(runs) == len(every) else f" ({', '.join(dict.fromkeys(run.label for run in runs))})"
        lines.append(f"Not scored: {data}{whose}. {error}")
    return lines


def _cautions(scores: Sequence[Score]) -> list[str]:
    runs = _runs(scores)
    groups = groups_of(runs)
    said = ["In brackets: 95 % confidence."]
    if any(pair.seeds == 1 for pair in contrasts_of(groups)):
        said.append("A difference of one seed has none: repeat with other seeds before it is called an effect.")
    repeats = [
        f"Left out of the table: {run.folder}, whose settings and seed are those of a later run."
        for run in repeats_in(runs, groups)
    ]
    return [" ".join(said), *repeats]
