"""The runs of a map, carried out within a time budget; its folder holds what is known of them, and the page."""

import hashlib
import json
import math
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ..config.identity import fingerprint, flattened, identity
from ..config.map_plan import MapSettings, PlannedRun
from ..errors import TrainerError, first_sentence, writing
from ..report.atomic_writing import write_atomically
from ..report.groups import Failure
from ..report.map_page import map_lines, write_map
from ..report.map_tables import map_csv
from ..report.recommended_gamma import judge
from ..report.record import RunRecord
from .cluster_job import Attempt
from .folders import finished_run
from .launchers import launch_one_by_one
from .lock import acquire_lock
from .time_budget import TimeBudget
from .timed import Attempted, attempt_quietly, time_whole_run

AGAIN = "give the same words again"


class MapRuns:
    """All runs of a plan: those that are finished, those that failed, those to be done."""

    def __init__(
        self, planned: Sequence[PlannedRun], settings: MapSettings, attempt: Attempt, began: float | None = None
    ) -> None:
        """`attempt` does one run. The time budget counts from `began` on, as time.monotonic() gave it, or from now."""
        self.planned = {run.title: run for run in planned}
        self.settings = settings
        self.attempt = attempt
        self.sweep: Any = planned[0].config.sweep
        self.budget = TimeBudget(None if settings.budget is None else 60 * settings.budget, began=began)
        self.folder = Path(planned[0].config.runs).expanduser() / f"map-{_name(planned)}"
        self.finished: dict[str, Path] = {}  # by the runs' titles
        self.failed: dict[str, str] = {}  # what stopped them, in an earlier call too
        self.began: dict[str, float] = {}  # those under way
        self.waiting: list[PlannedRun] = []

    def carry_out(self) -> None:
        """Does what fits into the time, and writes the page, also where something stops it.

        Raises TrainerError for a budget that is too short for one run, and where runs failed.
        """
        with writing(self.folder, then=AGAIN):
            self.folder.mkdir(parents=True, exist_ok=True)
        with acquire_lock(self.folder, then=AGAIN):
            self._read()
            try:
                with _stopped_with_a_word(self):
                    if self.waiting and self.settings.budget is not None:
                        self._time_cells()
                        self._require_time_for_one()
                    for config, attempted in self._launch():
                        self._note(config.title, attempted)
            finally:
                self._write_page()
        if self.failed:
            left = f"the map without them is {self.page}" if self.finished else f"{self.output} has what they said"
            raise TrainerError(
                f"{len(self.failed)} of {len(self.planned)} runs failed; {left}. Once the cause is mended, the same words "
                "run what is missing."
            )

    @property
    def page(self) -> Path:
        return self.folder / "report.html"

    @property
    def output(self) -> Path:
        """What the runs print."""
        return self.folder / "output.txt"

    @property
    def places(self) -> int:
        """Runs at a time."""
        return int(self.sweep.jobs) if self.sweep.launcher == "joblib" else 1

    def _read(self) -> None:
        """Finds the runs that there are already, and how long those of this map took."""
        for run in self.planned.values():
            if (folder := finished_run(run.config)) is not None:
                self.finished[run.title] = folder
            else:
                self.waiting.append(run)
        path = self.folder / "map.json"
        if path.is_file():
            try:
                known = json.loads(path.read_text())
                self.budget.measured = known["seconds"]
                stopped = {
                    run["title"]: run["error"] for runs in known["cells"].values() for run in runs if run["error"]
                }
            except (ValueError, KeyError, TypeError):
                raise TrainerError(f"{path} is no file of a map. Remove it: no result is lost.") from None
            self.failed = {run.title: stopped[run.title] for run in self.waiting if run.title in stopped}
            self.waiting.sort(key=lambda run: run.title in self.failed)  # they may fail again, and keep nobody waiting
        if self.finished:
            print(f"{len(self.finished)} of {len(self.planned)} runs are finished already.", flush=True)

    def _time_cells(self) -> None:
        """A few steps of each cell of which no run was timed."""
        unknown: dict[str, PlannedRun] = {}
        for run in sorted(self.waiting, key=lambda run: not run.config.penalty.gamma):  # the penalty takes its time
            if not self.budget.knows(run.cell):
                unknown.setdefault(run.cell, run)
        if not unknown:
            return
        print(f"Timing a few steps of {', and of '.join(name or 'a run' for name in unknown)}.", flush=True)
        timing, configs = self._work(time_whole_run), (run.config for run in unknown.values())
        for config, seconds in launch_one_by_one(self.sweep, lambda: next(configs, None), timing):
            cell = self.planned[config.title].cell
            self.budget.expected[cell] = seconds
            print(f"{cell or 'A run'}: about {minutes(seconds)} a run.", flush=True)

    def _require_time_for_one(self) -> None:
        shortest = min(self.waiting, key=lambda run: self.budget.estimate(run.cell))
        if not self.budget.fits(shortest.cell):
            needed, budget = self.budget.estimate(shortest.cell), self.settings.budget
            enough = math.ceil((self.budget.spent + needed) / 60) + 1
            raise TrainerError(
                f"map.budget={budget:g} is too short for one run: {shortest.cell or 'it'} takes about {minutes(needed)} "
                f"here, and {minutes(self.budget.left)} of {minutes(self.budget.seconds)} are left. Give "
                f"map.budget={enough} or more, or shorter runs (trainer.max_steps)."
            )

    def _launch(self) -> Iterator[tuple[DictConfig, Attempted]]:
        return launch_one_by_one(self.sweep, self._next, self._work(attempt_quietly))

    def _work(self, function: Any) -> Any:
        return partial(function, attempt=self.attempt, output=self.output.absolute())

    def _next(self) -> DictConfig | None:
        """The first run that fits into what is left of the time."""
        for run in self.waiting:
            if self.budget.fits(run.cell):
                self.waiting.remove(run)
                self.began[run.title] = self.budget.spent
                return run.config
        return None

    def _note(self, title: str, attempted: Attempted) -> None:
        run, seconds = self.planned[title], self.budget.spent - self.began.pop(title)
        folder, error = attempted.outcome
        if folder is None:
            self.failed[title] = error
            said = f"failed: {first_sentence(error)}"
        else:
            self.finished[title] = folder
            self.failed.pop(title, None)
            measure = judge(self.settings.score)
            score = measure.value(RunRecord.read(folder))
            said = "no score" if score is None else f"{measure.short} {measure.write(score)}"
            if attempted.whole:
                self.budget.measure(run.cell, seconds)
        self._write_state()
        print(f"{self._progress()}: {title}: {said}", flush=True)

    def _progress(self) -> str:
        done = f"{len(self.finished)} of {len(self.planned)}, {minutes(self.budget.spent)}"
        if self.settings.budget is None:
            return done
        under_way = [
            began + self.budget.estimate(self.planned[title].cell) - self.budget.spent
            for title, began in self.began.items()
        ]
        more = self.budget.count_that_fit(under_way, [run.cell for run in self.waiting], self.places)
        return f"{done} of {minutes(self.budget.seconds)}, about {more} more fit"

    def _write_state(self) -> None:
        cells: dict[str, list[dict[str, Any]]] = {}
        for title, run in self.planned.items():
            folder = self.finished.get(title)
            cells.setdefault(run.cell, []).append(
                {
                    "title": title,
                    "seed": run.config.seed,
                    "penalty": run.config.penalty.name,
                    "gamma": run.config.penalty.gamma,
                    "weight_decay": run.config.optimizer.weight_decay,
                    "folder": None if folder is None else str(folder),
                    "error": self.failed.get(title),
                }
            )
        content = {"score": self.settings.score, "seconds": self.budget.measured, "cells": cells}
        with writing(self.folder / "map.json", then=AGAIN) as path:
            write_atomically(path, json.dumps(content, indent=1) + "\n")

    def _write_page(self) -> None:
        """And the table, and the recommendations in the terminal."""
        self._write_state()
        records, missing = [], self.missing()
        for title, folder in self.finished.items():
            try:
                records.append(RunRecord.read(folder))
            except TrainerError as error:
                missing.append(f"{title} ({error})")
        if not records:
            return
        with writing(self.folder / "map.csv", then=AGAIN) as path:
            write_atomically(path, map_csv(records))
        with writing(self.page, then=AGAIN) as path:
            write_map(path, records, missing, self.settings.score, self.failures())
        print("\n".join(["", *map_lines(records, self.settings.score, self.failures()), ""]))
        if len(self.finished) < len(self.planned):
            left = len(self.planned) - len(self.finished)
            print(f"Not done: {left} of {len(self.planned)} runs. The same words go on.")
        print(f"Map: {self.page}", flush=True)

    def failures(self) -> list[Failure]:
        """Of runs that would be in the map."""
        return [
            Failure(flattened(identity(self.planned[title].config)), first_sentence(error).removesuffix("."))
            for title, error in self.failed.items()
        ]

    def missing(self) -> list[str]:
        """The runs without results, with the reason."""
        return [
            f"{title} (failed: {first_sentence(self.failed[title])})"
            if title in self.failed
            else f"{title} (not done yet)"
            for title in self.planned
            if title not in self.finished
        ]


def minutes(seconds: float) -> str:
    """As 12:40, also above an hour."""
    whole = max(0, round(seconds))
    return f"{whole // 60}:{whole % 60:02}"


@contextmanager
def _stopped_with_a_word(runs: MapRuns) -> Iterator[None]:
    """Turns Ctrl-C, SIGTERM and a process that is gone into an error that says how to go on."""
    go_on = "The same words go on."
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except BrokenExecutor:
        raise TrainerError(
            f"A process that worked on a run is gone; maybe memory was short. {go_on} sweep.jobs=1 takes less memory."
        ) from None
    except (KeyboardInterrupt, TrainerError) as error:
        if isinstance(error, TrainerError) and "Stopped by SIG" not in str(error):
            raise
        raise TrainerError(f"Stopped after {len(runs.finished)} of {len(runs.planned)} runs. {go_on}") from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _name(planned: Sequence[PlannedRun]) -> str:
    """Of the runs, whatever their order: the same words find the map again."""
    text = " ".join(sorted(fingerprint(run.config) for run in planned))
    return hashlib.sha256(text.encode()).hexdigest()[:10]
