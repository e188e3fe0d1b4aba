"""`-m`: every combination of the values given, and one table and one report of all."""

import csv
import io
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig

from .config import fingerprint
from .errors import TrainerError, first_sentence, writing
from .report.atomic_writing import write_atomically
from .report.groups import Group, groups_of
from .report.measures import COST, REPRESENTATION, SCORES, TRAINING, present
from .report.page import write_report
from .report.record import RunRecord
from .report.text_summary import aligned, contrasts_as_lines, legend, seeds_named, value_text
from .runs.launchers import Outcome, launch
from .runs.pretrain import pretrain

COLUMNS = (*SCORES[:2], REPRESENTATION[0], TRAINING[1], COST[0])  # of the table in the terminal
IN_CSV = (
    "knn",
    "linear_probe",
    "representation_effective_rank",
    "penalty_raw",
    "images_per_second",
    "collapsed",
)


def sweep(varied: Sequence[Sequence[str]], configs: Sequence[DictConfig]) -> Path:
    """Runs all configurations; returns the folder of the table (sweep.csv) and the report (report.html). With
    `resume=auto`, runs that are finished already are taken as they are."""
    outcomes = launch(configs[0].sweep, configs, attempt)
    name = f"sweep-{time.strftime('%Y%m%d-%H%M%S')}-{fingerprint(configs[-1])}"
    folder = Path(configs[-1].runs).expanduser() / name
    records = [None if outcome.folder is None else RunRecord.read(outcome.folder) for outcome in outcomes]
    with writing(folder / "sweep.csv") as path:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, as_csv(varied, records, outcomes))
    print(f"\n{table(varied, records, outcomes)}\n")
    if done := [record for record in records if record is not None]:
        with writing(folder / "report.html") as path:
            write_report(path, done, failures(varied, outcomes))
    if failed := len(records) - len(done):
        raise TrainerError(
            f"{failed} of {len(records)} runs failed; the table of the others is {folder / 'sweep.csv'}. "
            "Once the cause is mended, the same words with resume=auto run what is missing."
        )
    return folder


def attempt(config: DictConfig, threads: int | None) -> Outcome:
    """One run of a sweep: one that fails stops no other."""
    if threads is not None and config.trainer.threads is None:
        torch.set_num_threads(threads)
    try:
        return Outcome(pretrain(config))
    except TrainerError as error:
        print(f"{config.title or 'run'}: {error}", flush=True)
        if "Stopped by SIG" in str(error):  # the user means all of them
            raise
        return Outcome(None, str(error))


def table(varied: Sequence[Sequence[str]], records: Sequence[RunRecord | None], outcomes: Sequence[Outcome]) -> str:
    """A line a run; where seeds vary, a line for the runs that differ in nothing else, with mean and 95 % interval; and a
    line for each group and its baseline or control, with the difference seed by seed."""
    done = [record for record in records if record is not None]
    columns = present(COLUMNS, done) or list(COLUMNS)  # all runs failed
    groups = groups_of(done)
    lines = [["", *(column.short for column in columns)]]
    for words, record in zip(varied, records, strict=True):
        if record is not None:
            title = (", ".join(words) or "run") + " (collapsed)" * bool(record.results.get("collapsed"))
            alone = Group(title, (record,))
            lines.append([title, *(value_text(alone, column) for column in columns)])
    lines += [
        [seeds_named(group), *(value_text(group, column) for column in columns)]
        for group in groups
        if len(group.runs) > 1
    ]
    if len(groups) > 1:
        lines += contrasts_as_lines(groups, columns)
    return "\n".join([*aligned(lines), *legend(lines), *failures(varied, outcomes)])


def failures(varied: Sequence[Sequence[str]], outcomes: Sequence[Outcome]) -> list[str]:
    """The runs that have no results, each with the reason."""
    return [
        f"{', '.join(words) or 'run'} (failed: {first_sentence(outcome.error)})"
        for words, outcome in zip(varied, outcomes, strict=True)
        if outcome.folder is None
    ]


def as_csv(varied: Sequence[Sequence[str]], records: Sequence[RunRecord | None], outcomes: Sequence[Outcome]) -> str:
    file = io.StringIO()
    keys = [word.partition("=")[0] for word in varied[0]]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*keys, *IN_CSV, "folder", "error"])
    for words, record, outcome in zip(varied, records, outcomes, strict=True):
        values = [word.partition("=")[2] for word in words]
        figures = [record.results.get(key, "") if record else "" for key in IN_CSV]
        writer.writerow([*values, *figures, outcome.folder or "", outcome.error])
    return file.getvalue()
