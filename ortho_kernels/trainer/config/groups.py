"""The options of a run: the root, and the groups that the parts of the trainer declare beside their code."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from ..backbones import BACKBONES
from ..data import SOURCES
from ..engine.optimizers import OPTIMIZERS
from ..engine.penalties import PENALTIES
from ..engine.settings import TRAINERS, TrainerSettings
from ..methods import METHODS
from ..probes.evaluation import EvaluationSettings
from .recipes import FILES, paper_recipes

LAUNCHERS = ("serial", "joblib", "submitit")


@dataclass
class SweepSettings:
    """How `-m` runs its combinations; no part of what a run is."""

    launcher: str = "serial"  # serial | joblib (several at a time on this machine) | submitit (SLURM)
    jobs: int = 2  # of joblib, at a time
    cluster: str = "slurm"  # of submitit; local and debug are for trying it out
    slurm: dict[str, Any] = field(default_factory=dict)  # of submitit: {timeout_min: 600, slurm_partition: gpu, ...}


@dataclass
class Settings:
    """The root: one option of each group, and these."""

    method: Any = MISSING
    data: Any = MISSING
    backbone: Any = MISSING
    penalty: Any = MISSING
    optimizer: Any = MISSING
    trainer: TrainerSettings = MISSING
    evaluation: EvaluationSettings = MISSING
    seed: int = 0
    resume: str | None = None  # auto, or a run's folder
    runs: str = "runs"  # the folder that holds the runs
    title: str | None = None  # what reports call the run
    note: str | None = None  # what reports say about it
    sweep: SweepSettings = field(default_factory=SweepSettings)


GROUPS: dict[str, dict[str, Any]] = {
    "method": {name: method.Settings for name, method in METHODS.items()},
    "data": {name: source.settings for name, source in SOURCES.items()},
    "backbone": {name: backbone.settings for name, backbone in BACKBONES.items()},
    "penalty": dict(PENALTIES),
    "optimizer": dict(OPTIMIZERS),
    "trainer": dict(TRAINERS),
    "evaluation": {"default": EvaluationSettings},
}


def option_groups() -> dict[str, list[str]]:
    """The groups with more than one option, and the recipes."""
    recipes = FILES / "experiment"
    names = sorted(path.relative_to(recipes).with_suffix("").as_posix() for path in recipes.rglob("*.yaml"))
    names += paper_recipes()
    return {name: list(options) for name, options in GROUPS.items() if len(options) > 1} | {"experiment": names}
