"""Runs whose time counts: one that is done out of sight, and how long one would take, by a few of its steps."""

import contextlib
import json
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig

from ..errors import TrainerError
from .cluster_job import Attempt, Outcome
from .pretrain import planned_steps

STEPS = 8  # of a run that is only timed


class Attempted(NamedTuple):
    outcome: Outcome
    whole: bool  # from the first step to the end: not taken as it was, nor the rest of a run that was cut off


def attempt_quietly(config: DictConfig, threads: int | None, attempt: Attempt, output: Path) -> Attempted:
    """One run. What it prints is appended to a file. Whatever is wrong with it stops no other."""
    with _printed_to(output):
        began = time.time()
        try:
            outcome = attempt(config, threads)
        except Exception as error:
            traceback.print_exc()
            return Attempted(Outcome(None, f"{type(error).__name__}: {error}"), False)
        if outcome.folder is None:
            return Attempted(outcome, False)
        progress = json.loads((outcome.folder / "progress.json").read_text())
        return Attempted(outcome, progress["start"] == 0 and progress["started"] >= began)


def time_whole_run(config: DictConfig, threads: int | None, attempt: Attempt, output: Path) -> float:
    """Seconds that a run of this configuration takes, as far as a few steps and one evaluation show.

    Raises TrainerError for a run that fails.
    """
    with _printed_to(output), tempfile.TemporaryDirectory() as folder:
        short = config.copy()
        short.resume, short.runs, short.trainer.wandb, short.evaluation.every = None, folder, None, None
        short.trainer.max_steps = STEPS
        short.title = f"{config.title}, {STEPS} steps to time them"
        began = time.monotonic()
        run, error = attempt(short, threads)
        seconds = time.monotonic() - began
        if run is None:
            raise TrainerError(f"{config.title}: {error}")
        results = json.loads((run / "results.json").read_text())
    steps = planned_steps(config.trainer, results["train_size"] // config.trainer.batch_size)
    return seconds + max(0, steps - STEPS) * results["step_ms"] / 1e3


@contextlib.contextmanager
def _printed_to(path: Path) -> Iterator[None]:
    with open(path, "a", encoding="utf-8") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        yield
