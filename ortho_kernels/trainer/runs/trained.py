"""An encoder that has been trained: of a finished run's folder, or of a file that `export` has written."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..backbones import build_encoder
from ..config import load_config
from ..data import Source, Splits, load_splits
from ..data.preprocess import Preprocess
from ..distributed.processes import ALONE
from ..engine.checkpoints import checkpoint_files, step_of
from ..engine.memory_format import apply_memory_format
from ..errors import TrainerError
from ..export import load_encoder, load_preprocess, read_encoder, wrapping
from .judged import load_judged


@dataclass(frozen=True)
class Trained:
    """An encoder in evaluation mode, on the CPU, and what is known of it."""

    path: Path  # the run's folder, or the file
    encoder: nn.Module = field(repr=False)
    preprocess: Preprocess
    network: str | None = None  # student, teacher or ema; None for a file
    step: int | None = None  # of the checkpoint
    config: DictConfig | None = field(default=None, repr=False)  # the run's
    digest: str | None = None  # of a file's content; another encoder may be written in its place

    @property
    def results_folder(self) -> Path:
        """Where what is found out about it later is written: RUN/evaluations, or FILE.evaluations beside
        FILE.safetensors."""
        if self.config is None:
            return self.path.with_name(f"{self.path.name.removesuffix('.safetensors')}.evaluations")
        return self.path / "evaluations"

    def splits(self) -> Splits:
        """The pictures by which the run was judged. Raises TrainerError for a file, which knows of none."""
        if self.config is None:
            raise TrainerError(
                f"{self.path} does not say what it was trained on: name a data set, such as data=cifar10."
            )
        own = load_splits(cast(Source, OmegaConf.to_object(self.config.data)), ALONE)
        return load_judged(self.config, own, ALONE)


def load_trained(path: Path, network: str | None = None) -> Trained:
    """The encoder of a finished run (its student, teacher or ema; by default the one it was judged by), or of a file.

    Raises TrainerError for a run that has not finished, a network that the run does not have, and what can't be read.
    """
    if path.is_file():
        if network is not None:
            raise TrainerError(f"network={network}: {path} holds one network; a run's folder has several.")
        return Trained(path, load_encoder(path), load_preprocess(path), digest=_digest(path))
    config = read_run_config(path)
    checkpoint = require_finished(path)
    network = network or config.evaluation.network
    description, weights = read_encoder(checkpoint, network)
    preprocess = Preprocess.from_options(description["preprocess"])
    backbone: Any = OmegaConf.to_object(config.backbone)
    encoder = build_encoder(backbone, preprocess.channels, preprocess.size)
    apply_memory_format(encoder, config.trainer.channels_last, sharded=False)
    prefix = wrapping(encoder.state_dict())
    encoder.load_state_dict({f"{prefix}{name}": weight for name, weight in weights.items()})
    return Trained(path, encoder.eval(), preprocess, network, step_of(checkpoint), config)


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def require_trained(path: Path) -> None:
    """Raises TrainerError, before anything is read, where there is neither a finished run nor a file."""
    if not path.is_file():
        require_run(path)
        require_finished(path)


def require_run(folder: Path) -> None:
    """Raises TrainerError where there is no run."""
    if not folder.is_dir():
        raise TrainerError(f"There is no {folder}: give a run's folder, or a file that `export` has written.")
    if not (folder / "config.yaml").is_file():
        raise TrainerError(f"{folder} is no run's folder: it has no config.yaml.")


def read_run_config(folder: Path) -> DictConfig:
    """The options of the run in a folder. Raises TrainerError where there is no run."""
    require_run(folder)
    return load_config([f"config={folder / 'config.yaml'}"])


def require_finished(folder: Path) -> Path:
    """The last checkpoint of a finished run."""
    checkpoints = checkpoint_files(folder / "checkpoints")
    if not (folder / "results.json").is_file():
        step = f" (step {step_of(checkpoints[0])})" if checkpoints else ""
        raise TrainerError(
            f"{folder} has not finished{step}: wait for it, or go on with it by resume={folder}. To look at it "
            f"while it trains: python -m ortho_kernels.trainer.watch {folder}"
        )
    if not checkpoints:
        raise TrainerError(f"{folder} has no checkpoint left to evaluate.")
    return checkpoints[0]
