"""Run folders: named by time and the fingerprint of the configuration, found again and checked before a resume."""

import re
import time
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from .checkpoints import checkpoint_files, read_checkpoint
from .config import differences, fingerprint, identity
from .errors import TrainerError


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
        return int(self.checkpoint.stem.removeprefix("step-")) if self.checkpoint else 0

    @property
    def finished(self) -> bool:
        return (self.folder / "results.json").exists()


def open_run(config: DictConfig) -> Run:
    """A new folder, or, with `resume`, that of an earlier run of the same configuration."""
    if config.resume is None:
        return _new_run(config)
    if config.resume == "auto":
        folder = _newest_run(config)
        if folder is None:
            return _new_run(config)
    else:
        folder = Path(config.resume).expanduser()
    return _reopened(folder, config)


def _newest_run(config: DictConfig) -> Path | None:
    pattern = re.compile(rf"\d{{8}}-\d{{6}}-{fingerprint(config)}(-\d+)?")
    runs = Path(config.runs).expanduser()
    if not runs.is_dir():
        return None
    found = [folder for folder in runs.iterdir() if pattern.fullmatch(folder.name) and _has_work(folder)]
    return max(found, key=lambda folder: folder.name, default=None)


def _has_work(folder: Path) -> bool:
    return bool(checkpoint_files(folder / "checkpoints"))


def _reopened(folder: Path, config: DictConfig) -> Run:
    if not _has_work(folder):
        raise TrainerError(f"resume={folder}: there is no checkpoint in it. Give a run's folder, or resume=auto.")
    checkpoint = checkpoint_files(folder / "checkpoints")[0]
    theirs = read_checkpoint(checkpoint).get("configuration", {})
    if changed := differences(identity(config), theirs):
        raise TrainerError(
            f"{folder} is a run of another configuration; it differs in\n  "
            + "\n  ".join(changed)
            + "\nGive the same options to resume it, or no resume to start a new run."
        )
    _check_writable(folder)
    return Run(folder, checkpoint)


def _new_run(config: DictConfig) -> Run:
    runs = Path(config.runs).expanduser()
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{fingerprint(config)}"
    try:
        folder = _fresh_folder(runs, name)
        _check_writable(folder)
        OmegaConf.save(config, folder / "config.yaml")
    except OSError as error:
        raise TrainerError(
            f"Cannot write in {runs}: {error.strerror or error}. Choose another folder: runs=FOLDER."
        ) from None
    return Run(folder)


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


def _check_writable(folder: Path) -> None:
    """Found out by trying: permissions, quotas and read-only mounts all show only so."""
    probe = folder / ".write-test"
    try:
        probe.write_bytes(b"\0" * 4096)
        probe.unlink()
    except OSError as error:
        raise TrainerError(f"Cannot write in {folder}: {error.strerror}. Choose another folder: runs=FOLDER.") from None
