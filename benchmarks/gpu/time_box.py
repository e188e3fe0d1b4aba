"""A command in a process group and a time box of its own: when the time is over, all of its processes are gone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SECONDS_TO_REPORT = 2  # of a Python whose time is over, to print where it was
SECONDS_TO_DIE = 20  # of a killed process; one that waits for a hung driver takes longer, and is left behind


@dataclass(frozen=True)
class Outcome:
    """How a command ended. `code` is its exit status (negative: the signal that ended it), None if its time was over."""

    code: int | None
    seconds: float


def run(command: Sequence[str], seconds: float, log: IO, environment: Mapping[str, str], folder: Path) -> Outcome:
    """Runs a command for at most so many seconds, with what it prints in `log`. Its children end with it, always.

    When the time is over, each Python among them first prints where its threads are. Raises `OSError` where the command
    can't be started.
    """
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**environment, "PYTHONFAULTHANDLER": "1"},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    code = None
    try:
        code = process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGABRT)
        _await_group(process)
    finally:  # also where this process itself is told to stop
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=SECONDS_TO_DIE)
    return Outcome(code, time.monotonic() - began)


def _await_group(process: subprocess.Popen) -> None:
    """Until all processes of the group are gone, for a while."""
    end = time.monotonic() + SECONDS_TO_REPORT
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < end:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.05)
