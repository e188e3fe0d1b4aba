"""The runs of a map: gammas in every cell, each beside what it has to beat, for every seed.

A cell is one choice of everything but the penalty, the weight decay and the seed, such as one method and one backbone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from omegaconf import DictConfig, OmegaConf

from ..engine.penalties import Decay, NoPenalty
from ..errors import TrainerError
from ..options import at_least, more_than, one_of, option
from ..report.recommended_gamma import JUDGES
from .check import check
from .composition import combinations, load_config
from .identity import fingerprint

GRID = (0.1, 1.0, 10.0)  # of the recipe's gamma: the steps of the paper's search
SEEDS = (0, 1, 2)
OWN = {
    "resume": "A map always goes on where it was cut off.",
    "title": "A map names its runs by what sets them apart.",
}


@dataclass
class MapSettings:
    budget: float | None = option(None, "minutes that this call may take; as many as it needs by default", more_than(0))
    decay: list[float] | None = option(
        None, "gammas of the control penalty=decay; the recipe's by default", more_than(0)
    )
    weight_decay: list[float] = option(
        [0.1, 10.0], "multiples of the recipe's optimizer.weight_decay, each at gamma 0", at_least(0)
    )
    score: str = option("knn", "by which gamma is judged", one_of(*JUDGES))


@dataclass
class MapWords:
    """The words of a map that are no options of its runs."""

    map: MapSettings = field(default_factory=MapSettings)


@dataclass(frozen=True)
class PlannedRun:
    cell: str  # by the words that set it apart from the other cells
    config: DictConfig

    @property
    def title(self) -> str:
        return str(self.config.title)


@dataclass(frozen=True)
class Cell:
    name: str
    words: list[str]  # all of its runs
    penalties: list[tuple[list[str], list[str]]]  # the words of each that vary, and all of it

    def load(self, *words: str) -> DictConfig:
        return load_config([*self.words, *words])


def plan_map(words: Sequence[str], settings: MapSettings) -> list[PlannedRun]:
    """All runs, in the order in which they are to be done: every configuration of the first seed, then of the next.

    Raises TrainerError for words that the map sets itself, and for a recipe without a penalty or a weight decay.
    """
    _refuse_own(words)
    of_penalty = [word for word in words if _key(word).startswith("penalty") and _key(word) != "penalty.gamma"]
    of_cell = [word for word in words if word not in of_penalty and _key(word) not in ("penalty.gamma", "seed")]
    penalties = combinations(of_penalty)
    cells = [Cell(", ".join(varied), chosen, penalties) for varied, chosen in combinations(of_cell)]
    first = [*cells[0].words, *penalties[0][1]]  # with which the values below are read and checked
    gammas = [float(load_config([*first, word]).penalty.gamma) for word in _choices(words, "penalty.gamma")]
    if gammas and not any(gammas):
        raise TrainerError(
            "penalty.gamma=0 is the baseline, which every map has: give gammas above 0, or leave it out."
        )
    seeds = [int(load_config([*first, word]).seed) for word in _choices(words, "seed")] or list(SEEDS)
    of_cells = [list(_configurations(cell, gammas, settings)) for cell in cells]
    planned: dict[str, PlannedRun] = {}  # a configuration that comes twice is one run
    for seed in seeds:
        for alike in zip(*of_cells, strict=True):
            for run in alike:
                seeded = _with_seed(run, seed)
                planned.setdefault(fingerprint(seeded.config), seeded)
    return list(planned.values())


def _configurations(cell: Cell, gammas: Sequence[float], settings: MapSettings) -> Iterator[PlannedRun]:
    """The baseline, every gamma of every penalty, and the controls."""
    bases = [cell.load(*chosen) for _, chosen in cell.penalties]
    for base in bases:
        _require_fit(base)
    yield _run(cell, bases[0], [], 0.0)
    for base, (varied, _) in zip(bases, cell.penalties, strict=True):
        for gamma in gammas or [factor * base.penalty.gamma for factor in GRID]:
            yield _run(cell, base, varied, gamma)
    kept = [word for word in cell.penalties[0][1] if _key(word) in ("penalty.include", "penalty.exclude")]
    control = cell.load(*kept, "penalty=decay")
    for gamma in [control.penalty.gamma] if settings.decay is None else settings.decay:
        yield _run(cell, control, ["penalty=decay"], gamma)
    usual = bases[0].optimizer.weight_decay
    if settings.weight_decay and not usual:
        raise TrainerError(
            "optimizer.weight_decay=0 has no multiples: give optimizer.weight_decay=NUMBER, or map.weight_decay=[]."
        )
    for factor in settings.weight_decay:
        yield _run(cell, bases[0], [], 0.0, _round(factor * usual))


def _run(
    cell: Cell, base: DictConfig, varied: Sequence[str], gamma: float, weight_decay: float | None = None
) -> PlannedRun:
    config = base.copy()
    config.penalty.gamma = _round(gamma)
    words = [*([cell.name] if cell.name else []), *varied, f"penalty.gamma={config.penalty.gamma:g}"]
    if weight_decay is not None:
        config.optimizer.weight_decay = weight_decay
        words.append(f"optimizer.weight_decay={weight_decay:g}")
    config.title, config.resume = ", ".join(words), "auto"
    check(config)
    return PlannedRun(cell.name, config)


def _with_seed(run: PlannedRun, seed: int) -> PlannedRun:
    config = run.config.copy()
    config.seed, config.title = seed, f"{run.title}, seed={seed}"
    return PlannedRun(run.cell, config)


def _refuse_own(words: Sequence[str]) -> None:
    for key, why in OWN.items():
        if any(_key(word) == key for word in words):
            raise TrainerError(f"{why} Leave out {key}.")
    if len(_choices(words, "optimizer.weight_decay")) > 1:
        raise TrainerError(
            "optimizer.weight_decay takes one value in a map, which tries multiples of it: map.weight_decay=[0.1,10]."
        )


def _require_fit(base: DictConfig) -> None:
    """Raises TrainerError for a configuration that no map can be made of."""
    if base.sweep.launcher == "submitit":
        raise TrainerError(
            "A map shares out the time of this machine: give sweep.launcher=serial or joblib. On a cluster, -m with the "
            "same gammas and seeds does the runs, and the map takes them from the same runs=FOLDER."
        )
    if OmegaConf.get_type(base.penalty) in (NoPenalty, Decay):
        raise TrainerError(
            "A map varies the gamma of a penalty: give penalty=so or penalty=srip. The baseline and penalty=decay are in "
            "every map (map.decay=[GAMMA,...])."
        )


def _choices(words: Sequence[str], key: str) -> list[str]:
    """The single words that the words of this key stand for."""
    return [chosen[-1] for _, chosen in combinations([word for word in words if _key(word) == key]) if chosen]


def _key(word: str) -> str:
    return word.partition("=")[0]


def _round(number: float) -> float:
    """Products such as 0.1 * 0.0003 as one would write them."""
    return float(f"{number:.6g}")
