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
from ..options import at_least, one_of, option
from ..probes.evaluation import EvaluationSettings
from ..registry import Registry, settings_of
from .recipes import FILES, paper_recipes


@dataclass
class SweepSettings:
    """How `-m` runs its combinations; no part of what a run is."""

    launcher: str = option("serial", "one run at a time, several, or on SLURM", one_of("serial", "joblib", "submitit"))
    jobs: int = option(2, "runs at a time with joblib", at_least(1))
    cluster: str = option("slurm", "submitit's cluster; local and debug are for trying it out")
    requeues: int = option(100, "times that submitit submits a run again that took all of its time", at_least(0))
    slurm: dict[str, Any] = option({}, "what submitit takes: {timeout_min: 600, slurm_partition: gpu, ...}")


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
    seed: int = option(0, "on which every random number depends")
    init: str | None = option(None, "start: a run's folder, a safetensors file, or pretrained; random by default")
    init_sha256: str | None = option(None, "of the start's weights; the run notes it, and refuses others")
    resume: str | None = option(None, "auto, or the folder of the run to go on with, or to prolong")
    prolongs: str | None = option(None, "the finished run that this one goes on with; resume=FOLDER notes it")
    runs: str = option("runs", "folder that holds the runs")
    gammas: dict[str, float] = option({}, "a recipe's gammas, by penalty: {so: 2e-4, srip: 2e-2}")
    title: str | None = option(None, "name of the run in reports")
    note: str | None = option(None, "what reports say about the run")
    sweep: SweepSettings = field(default_factory=SweepSettings)


REGISTRIES: dict[str, Registry[Any]] = {each.group: each for each in (METHODS, SOURCES, BACKBONES, PENALTIES)}

GROUPS: dict[str, dict[str, Any]] = {
    **{group: {name: settings_of(part) for name, part in parts.items()} for group, parts in REGISTRIES.items()},
    "optimizer": dict(OPTIMIZERS),
    "trainer": dict(TRAINERS),
    "evaluation": {"default": EvaluationSettings},
}


def option_groups() -> dict[str, list[str]]:
    """The groups with more than one option, and the recipes."""
    recipes = FILES / "experiment"
    names = sorted(path.relative_to(recipes).with_suffix("").as_posix() for path in recipes.rglob("*.yaml"))
    names += paper_recipes()
    groups = {name: list(options) for name, options in GROUPS.items() if len(options) > 1}
    return groups | {name: registry.names() for name, registry in REGISTRIES.items()} | {"experiment": names}
