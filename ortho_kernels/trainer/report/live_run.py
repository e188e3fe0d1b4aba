"""A run that may still train, as its folder shows it from outside. Reads alone."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import TrainerError, printable
from .decimation import Floats
from .growing_table import GrowingTable

# Without a new row for this long, and for so many times as long as rows took so far, a run counts as stalled.
STALLED_SECONDS = 120.0
STALLED_ROWS = 10


@dataclass(frozen=True)
class Curve:
    column: str  # of metrics.csv or evaluations.csv
    title: str
    factor: float = 1.0  # from the column to what is drawn
    from_zero: bool = False


CURVES = (
    Curve("loss", "loss"),
    Curve("penalty_raw", "penalty before gamma"),
    Curve("spread", "spread", from_zero=True),
    Curve("knn", "kNN accuracy (%)", factor=100),
    Curve("effective_rank", "effective rank"),
    Curve("rankme", "RankMe"),
    Curve("lr", "learning rate"),
    Curve("images_per_second", "images/s", from_zero=True),
)


class State(Enum):
    STARTING = "starting"
    TRAINING = "training"
    STALLED = "stalled"
    EVALUATING = "evaluating"  # the final encoder: training has ended
    STOPPED = "stopped"
    FINISHED = "finished"


class LiveRun:
    """What the last look at a run's folder found.

    Raises TrainerError for a folder that is no run.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "config.yaml").is_file():
            raise TrainerError(f"{folder} is no run: there is no config.yaml in it. Give a run's folder.")
        self.folder = folder
        self.metrics = GrowingTable(folder / "metrics.csv")
        self.evaluations = GrowingTable(folder / "evaluations.csv")
        self.progress: dict[str, Any] = {}
        self.results: dict[str, Any] = {}
        self.state = State.STARTING
        self.changed = 0.0  # when the last row was written, in seconds of the epoch; 0 before the first

    def look(self, held: bool) -> None:
        """`held`: whether a process works on the run."""
        self.progress = _read_json(self.folder / "progress.json")
        self.results = _read_json(self.folder / "results.json")
        self.metrics.look()
        self.evaluations.look()
        self.changed = max(_time_of(table.path) for table in (self.metrics, self.evaluations)) if self.step else 0.0
        self.state = self._state(held)

    def _state(self, held: bool) -> State:
        if self.results:
            return State.FINISHED
        if not held:
            return State.STOPPED
        if not self.step:
            return State.STARTING
        if self.step == self.steps:
            return State.EVALUATING
        rows = int(np.count_nonzero(self.metrics.column("step") > self.progress.get("start", 0)))
        patience = max(STALLED_SECONDS, STALLED_ROWS * self._seconds_to_last_row() / max(1, rows))
        return State.STALLED if time.time() - self.changed > patience else State.TRAINING

    @property
    def label(self) -> str:
        return printable(self.progress.get("label") or self.results.get("label") or self.folder.name)

    @property
    def place(self) -> str:
        return printable(str(self.folder))

    @property
    def step(self) -> int:
        """Of the last row; 0 before the first."""
        steps = self.metrics.column("step")
        return int(steps[-1]) if len(steps) else 0

    @property
    def steps(self) -> int | None:
        """In all; None where the run does not say so."""
        return self.progress.get("steps") or self.results.get("steps")

    def seconds_so_far(self) -> float | None:
        """Since the process started that trains, or until it ended; None where that is not known."""
        if self.state is State.FINISHED:
            return self.results["seconds"]
        if "started" not in self.progress:
            return None
        return self._seconds_to_last_row() if self.state is State.STOPPED else time.time() - self.progress["started"]

    def seconds_left(self) -> float | None:
        """Of training, at the mean pace since its process started; None where that is not known."""
        done = self.step - self.progress.get("start", self.step)
        if self.state is not State.TRAINING or self.steps is None or done <= 0:
            return None
        pace = self._seconds_to_last_row() / done
        return max(0.0, self.changed + (self.steps - self.step) * pace - time.time())

    def _seconds_to_last_row(self) -> float:
        return max(0.0, self.changed - self.progress.get("started", self.changed))

    def curve(self, curve: Curve) -> tuple[Floats, Floats]:
        """Steps and values, both (rows,)."""
        for table in (self.metrics, self.evaluations):
            if len(values := table.column(curve.column)):
                return table.column("step"), curve.factor * values
        return np.empty(0), np.empty(0)


def curves_of(runs: Sequence[LiveRun]) -> list[Curve]:
    """Those that any of the runs has."""
    return [curve for curve in CURVES if any(np.isfinite(run.curve(curve)[1]).any() for run in runs)]


def steps_of(runs: Sequence[LiveRun]) -> tuple[float, float]:
    """The first and the last step of any row: the ends of the x axis of all curves."""
    steps = [table.column("step") for run in runs for table in (run.metrics, run.evaluations) if len(table)]
    return min(column[0] for column in steps), max(column[-1] for column in steps)


def labels_of(runs: Sequence[LiveRun]) -> list[str]:
    """Where runs are called alike, with the names of their folders."""
    labels = [run.label for run in runs]
    return [
        label if labels.count(label) == 1 else f"{label} ({printable(run.folder.name)})"
        for label, run in zip(labels, runs, strict=True)
    ]


def _read_json(path: Path) -> dict[str, Any]:
    """Empty where there is no such file."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return {}


def _time_of(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0
