"""`-m`: every combination of the values given, and one table and one report of all."""

import csv
import io
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig

from .config import fingerprint
from .errors import TrainerError, writing
from .report.atomic_writing import write_atomically
from .report.page import write_report
from .report.record import RunRecord
from .runs.launchers import Outcome, launch
from .runs.pretrain import pretrain

Column = tuple[str, str, int, int]  # key in results.json, title, factor, digits
COLUMNS: list[Column] = [
    ("knn", "kNN %", 100, 2),
    ("linear_probe", "probe %", 100, 2),
    ("representation_effective_rank", "rank", 1, 1),
    ("penalty_raw", "penalty / gamma", 1, 1),
    ("images_per_second", "images/s", 1, 0),
]
# Student's t for 95 % confidence, by degrees of freedom; from 30 on the normal distribution's.
T95 = [
    12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13,
    2.12, 2.11, 2.10, 2.09, 2.09, 2.08, 2.07, 2.07, 2.06, 2.06, 2.06, 2.05, 2.05, 2.05,
]  # fmt: skip


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
            write_report(path, done)
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
    """A line a run, and where seeds vary a line for the runs that differ in nothing else: mean and 95 % confidence."""
    columns = [column for column in COLUMNS if any(record and column[0] in record.results for record in records)]
    columns = columns or COLUMNS  # all runs failed
    lines = [["", *[title for _, title, _, _ in columns]]]
    for words, record, outcome in zip(varied, records, outcomes, strict=True):
        title = ", ".join(words) or "run"
        title += " (collapsed)" if record and record.results.get("collapsed") else ""
        lines.append([title, *(_cells(record, columns) if record else ["failed: " + outcome.error.partition(".")[0]])])
    for words, runs in _without_seeds(varied, records).items():
        if len(runs) > 1:
            lines.append([f"{words or 'all'}, {len(runs)} seeds", *_mean_cells(runs, columns)])
    widths = [max(len(line[i]) for line in lines if len(line) == len(lines[0])) for i in range(len(lines[0]))]
    widths[0] = max(len(line[0]) for line in lines)
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=False))])
        for line in lines
    )


def as_csv(varied: Sequence[Sequence[str]], records: Sequence[RunRecord | None], outcomes: Sequence[Outcome]) -> str:
    file = io.StringIO()
    keys = [word.partition("=")[0] for word in varied[0]]
    writer = csv.writer(file, lineterminator="\n")
    measured = [*(key for key, *_ in COLUMNS), "collapsed"]
    writer.writerow([*keys, *measured, "folder", "error"])
    for words, record, outcome in zip(varied, records, outcomes, strict=True):
        values = [word.partition("=")[2] for word in words]
        figures = [record.results.get(key, "") if record else "" for key in measured]
        writer.writerow([*values, *figures, outcome.folder or "", outcome.error])
    return file.getvalue()


def _without_seeds(varied: Sequence[Sequence[str]], records: Sequence[RunRecord | None]) -> dict[str, list[RunRecord]]:
    groups: dict[str, list[RunRecord]] = {}
    for words, record in zip(varied, records, strict=True):
        if record is not None and any(word.startswith("seed=") for word in words):
            groups.setdefault(", ".join(word for word in words if not word.startswith("seed=")), []).append(record)
    return groups


def _cells(record: RunRecord, columns: Sequence[Column]) -> list[str]:
    return [
        f"{factor * record.results[key]:.{digits}f}" if key in record.results else "–"
        for key, _, factor, digits in columns
    ]


def _mean_cells(records: Sequence[RunRecord], columns: Sequence[Column]) -> list[str]:
    cells = []
    for key, _, factor, digits in columns:
        values = [factor * record.results[key] for record in records if key in record.results]
        if len(values) < 2:
            cells.append("–")
            continue
        t = T95[len(values) - 2] if len(values) - 2 < len(T95) else 1.96
        half = t * statistics.stdev(values) / len(values) ** 0.5
        cells.append(f"{statistics.mean(values):.{digits}f} ± {half:.{digits}f}")
    return cells
