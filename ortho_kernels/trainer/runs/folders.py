"""Run folders: named by time and the fingerprint of the configuration, found again and checked before a resume."""

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from ..config import differences, fingerprint, identity, part_of_a_run, write_config
from ..distributed.processes import Ranks, print_once
from ..engine.checkpoints import checkpoint_files, read_checkpoint, step_of
from ..errors import TrainerError
from .lock import acquire_lock, refuse_if_held, wait_for_lapse
from .prolonging import begin_prolonged, prolongs

# With other numbers of processes a run goes on to rounding, not to the bit. They may be all that is left.
PROCESSES = ("trainer.devices", "trainer.nodes")


@dataclass(frozen=True)
class Run:
    folder: Path
    checkpoint: Path | None = None  # what training continues from

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def step(self) -> int:
        """Where training continues."""
        return step_of(self.checkpoint) if self.checkpoint else 0

    @property
    def finished(self) -> bool:
        return (self.folder / "results.json").exists()


@contextmanager
def open_run(config: DictConfig, ranks: Ranks) -> Iterator[Run]:
    """A new run, which may begin where a finished one ended, or, with `resume`, an earlier one of the same configuration.

    No other process works on it within the block. Rank 0 opens and holds it, and what stops rank 0 from it stops all.
    """
    if ranks.rank > 0:
        while (opened := ranks.broadcast(None)) is None:  # rank 0 still waits, and says so before our patience ends
            pass
        if isinstance(opened, TrainerError):
            raise opened
        _require_checkpoint(opened, ranks)
        yield opened
        return
    with ExitStack() as stack:
        try:
            folder = _earlier_folder(config, waiting=lambda: ranks.broadcast(None))
            if folder is None:
                folder = _new_folder(config)
                stack.enter_context(acquire_lock(folder))
                run = Run(folder, begin_prolonged(config, folder) if config.prolongs else None)
            else:
                stack.enter_context(acquire_lock(folder))  # before its newest checkpoint is looked for
                run = _reopen(folder, config)
        except TrainerError as error:
            ranks.broadcast(error)
            raise
        ranks.broadcast(Run(run.folder.absolute(), run.checkpoint and run.checkpoint.absolute()))
        _require_checkpoint(run, ranks)
        yield run


def _require_checkpoint(run: Run, ranks: Ranks) -> None:
    """Raises TrainerError on all ranks where one of them can't read what it is to continue from."""
    can_read = run.checkpoint is None or os.access(run.checkpoint, os.R_OK)
    hosts = sorted({host for host in ranks.gather(None if can_read else socket.gethostname()) if host is not None})
    if hosts:
        raise TrainerError(
            f"{run.checkpoint} cannot be read on {', '.join(hosts)}. Every process reads it: keep the runs (runs=FOLDER) "
            "where all machines find them at the same path, or copy the run's folder there."
        )


def _earlier_folder(config: DictConfig, waiting: Callable[[], object]) -> Path | None:
    """The folder to go on with, free or not. `waiting` is called while a lock may lapse that a lost machine has left."""
    if config.resume not in (None, "auto"):
        folder = Path(config.resume).expanduser()
        if not _has_work(folder):
            raise TrainerError(f"resume={folder}: there is no checkpoint in it. Give a run's folder, or resume=auto.")
        if prolongs(config, folder):
            return newest_run(config, waiting)
        wait_for_lapse(folder, waiting)
        return folder
    newest = newest_run(config, waiting) if config.resume == "auto" else None
    if newest is None and config.prolongs:
        raise TrainerError(
            f"These options prolong another run, {config.prolongs}: give resume=FOLDER, its folder. Or train all steps "
            "anew: prolongs=null."
        )
    return newest


def newest_run(config: DictConfig, waiting: Callable[[], object]) -> Path | None:
    """Of the configuration, with work to go on with; see `_earlier_folder`."""
    for folder in _folders_of(config):
        wait_for_lapse(folder, waiting)
        if _has_work(folder):
            return folder
        refuse_if_held(folder)  # one that trains, and has no checkpoint yet
    return None


def finished_run(config: DictConfig) -> Path | None:
    """The newest run of the configuration that has its results."""
    return next((folder for folder in _folders_of(config) if Run(folder).finished), None)


def _folders_of(config: DictConfig) -> list[Path]:
    """Of all runs of the configuration, newest first."""
    pattern = re.compile(rf"\d{{8}}-\d{{6}}-{fingerprint(config)}(-\d+)?")
    runs = Path(config.runs).expanduser()
    folders = runs.iterdir() if runs.is_dir() else ()
    return sorted((folder for folder in folders if pattern.fullmatch(folder.name)), reverse=True)


def _has_work(folder: Path) -> bool:
    return bool(checkpoint_files(folder / "checkpoints"))


def _reopen(folder: Path, config: DictConfig) -> Run:
    checkpoint = checkpoint_files(folder / "checkpoints")[0]
    theirs = part_of_a_run(read_checkpoint(checkpoint).get("configuration", {}))
    changed = differences(identity(config), theirs)
    if all(line.startswith(PROCESSES) for line in changed):
        for line in changed:
            print_once(f"{line}: {folder} goes on with other processes, the same to rounding, not to the bit.")
    else:
        raise TrainerError(
            f"{folder} is a run of another configuration; it differs in\n  "
            + "\n  ".join(changed)
            + "\nGive the same options to resume it, or no resume to start a new run."
        )
    _check_writable(folder)
    return Run(folder, checkpoint)


def _new_folder(config: DictConfig) -> Path:
    runs = Path(config.runs).expanduser()
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{fingerprint(config)}"
    try:
        folder = _fresh_folder(runs, name)
        _check_writable(folder)
        write_config(folder / "config.yaml", config)
    except OSError as error:
        raise TrainerError(
            f"Cannot write in {runs}: {error.strerror or error}. Choose another folder: runs=FOLDER."
        ) from None
    return folder


def _fresh_folder(runs: Path, name: str) -> Path:
    """Two runs of one configuration may start in the same second."""
    for attempt in range(1, 100):
        folder = runs / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if not folder.is_dir():
                raise
    raise TrainerError(f"{runs} holds too many runs named {name}.")


def try_writing(folder: Path) -> None:
    """Raises OSError where nothing can be written: permissions, quotas and read-only mounts all show only by trying."""
    probe = folder / ".write-test"
    probe.write_bytes(b"\0" * 4096)
    probe.unlink()


def _check_writable(folder: Path) -> None:
    try:
        try_writing(folder)
    except OSError as error:
        raise TrainerError(f"Cannot write in {folder}: {error.strerror}. Choose another folder: runs=FOLDER.") from None
