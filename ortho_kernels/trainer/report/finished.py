"""The finished runs that paths name: runs, folders of runs, sweeps. What is left out is said, with the reason."""

import csv
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import TrainerError, first_sentence
from .metrics_file import read_metrics
from .record import RunRecord


@dataclass
class Finished:
    runs: list[RunRecord] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # the name of each run that is left out, and why


def read_finished(paths: Sequence[Path]) -> Finished:
    """Each path is a run's folder, a sweep's, or one that holds runs.

    Raises TrainerError for a path without runs, and where no run has finished.
    """
    found = Finished()
    folders: dict[Path, None] = {}  # each once
    for path in paths:
        for folder, reason in _runs_of(path.expanduser()):
            if reason:
                found.missing.append(reason)
            else:
                folders.setdefault(folder.resolve())
    for folder in folders:
        try:
            found.runs.append(_read(folder))
        except NotFinished as error:
            found.missing.append(f"{folder.name} ({error})")
    if not found.runs:
        raise TrainerError(
            f"None of these runs has results: {'; '.join(found.missing)}. A run that is not finished goes on by "
            "resume=FOLDER."
        )
    return found


class NotFinished(Exception):
    """Why there are no results."""


def _read(folder: Path) -> RunRecord:
    try:
        if (folder / "results.json").is_file():
            return RunRecord.read(folder)
        metrics = folder / "metrics.csv"
        rows = read_metrics(metrics) if metrics.is_file() else []
    except TrainerError as error:
        raise NotFinished(str(error).replace(f"{folder}{os.sep}", "").removesuffix(".")) from None
    raise NotFinished(f"not finished, at step {rows[-1]['step']:.0f}" if rows else "not finished, no step yet")


def _runs_of(path: Path) -> Iterator[tuple[Path, str]]:
    """Folders of runs, or instead of one why there is none."""
    if (path / "config.yaml").is_file():
        yield path, ""
    elif (path / "sweep.csv").is_file():
        yield from _runs_of_sweep(path)
    elif folders := sorted(file.parent for file in path.glob("*/config.yaml")):
        yield from ((folder, "") for folder in folders)
    elif path.is_dir():
        raise TrainerError(f"{path} is no run and holds none: no config.yaml is in it or in a folder of it.")
    else:
        raise TrainerError(f"There is no folder {path}. Give runs, a sweep's folder, or the folder of all runs.")


def _runs_of_sweep(sweep: Path) -> Iterator[tuple[Path, str]]:
    """Their folders stand beside the sweep's, also where all of them were moved."""
    with open(sweep / "sweep.csv", newline="") as file:
        for row in csv.DictReader(file):
            words = ", ".join(f"{key}={row[key]}" for key in itertools.takewhile(lambda key: key != "knn", row))
            if not row.get("folder"):
                yield sweep, f"{words or 'a run'} (failed: {first_sentence(row.get('error') or '')})"
                continue
            folder = Path(row["folder"])
            places = [place for place in (sweep.absolute().parent / folder.name, folder) if place.is_dir()]
            yield (places[0], "") if places else (sweep, f"{folder.name} (its folder is gone)")
