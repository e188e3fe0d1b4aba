"""The gamma that a map recommends in each of its cells, and the evidence for it, which may be that there is none.

Recommended is, of the gammas whose gain over gamma 0 excludes 0, the smallest whose mean is within one standard error of
the best one's (as Breiman et al. prune trees, 1984). Intervals hold for all choices at once, so a maximum of noise is none.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .findings import collapse_of
from .groups import Group
from .intervals import Interval
from .map_cells import BASELINE, Cell, Series, cells_of
from .measures import REPRESENTATION, SCORES, Measure
from .seed_effects import Scores, SeedEffects, seed_effects
from .statistics import excludes_zero

JUDGES = {"knn": SCORES[0], "linear_probe": SCORES[1], "rankme": REPRESENTATION[1]}  # what a gamma may be judged by


def judge(score: str) -> Measure:
    """Raises ValueError for a score that no gamma can be judged by."""
    if score not in JUDGES:
        raise ValueError(f"score={score}: a map is judged by one of {', '.join(JUDGES)}")
    return JUDGES[score]


@dataclass(frozen=True)
class Judged:
    """A cell as one measure sees it."""

    cell: Cell
    scores: dict[str, dict[Any, float]]  # finite ones, gamma 0 first
    model: SeedEffects | None  # None without a score at gamma 0
    left_out: dict[str, str]  # groups that the model does not hold, and why

    @property
    def modeled(self) -> Scores:
        """Scores of the groups that are not left out."""
        return {name: own for name, own in self.scores.items() if name not in self.left_out}

    def gains(self, series: Series) -> dict[str, Interval]:
        """Over gamma 0, of each group that the model holds, for all of them at once."""
        held = self.held(series)
        if self.model is None:
            return {}
        return {name: self.model.difference(name, BASELINE, len(held)) for name in held}

    def held(self, series: Series) -> list[str]:
        return [group.label for group in series.groups if self.model is not None and group.label in self.model.effects]


@dataclass(frozen=True)
class OnOtherSeed:
    """A gamma was chosen without this seed, and is judged on it alone. The best control was chosen in the same way."""

    seed: Any
    chosen: str
    gain: float  # over gamma 0
    over_control: float | None


@dataclass(frozen=True)
class Recommendation:
    judged: Judged
    penalty: Series
    gamma: float | None  # None: no gamma can be recommended
    reason: str  # why there is none; empty where there is one
    shown: str | None  # the group whose evidence this is: the recommended one, or else the best
    gain: Interval | None  # of it over gamma 0
    over_controls: dict[str, tuple[str, Interval]]  # by the kind of control: its best, and what is gained over that
    other_seeds: tuple[OnOtherSeed, ...]
    cautions: tuple[str, ...]

    @property
    def cell(self) -> Cell:
        return self.judged.cell

    @property
    def seeds(self) -> int:
        """How many there are at gamma 0."""
        return len(self.judged.scores.get(BASELINE, ()))

    @property
    def verdicts(self) -> list[str]:
        """What is said of it in words: why there is none, how it stands against controls, and what to bear in mind."""
        against = [f"{_placed(interval)} the best {kind}" for kind, (_, interval) in self.over_controls.items()]
        return [*filter(None, [self.reason]), *(against if self.gamma is not None else []), *self.cautions]

    @property
    def shown_value(self) -> str:
        """The gamma whose evidence this is, as one writes it."""
        labels = [group.label for group in self.penalty.groups]
        return self.penalty.values[labels.index(self.shown)] if self.shown else ""

    @property
    def value(self) -> str:
        """The recommended gamma as one writes it; empty where there is none."""
        return "" if self.gamma is None else self.shown_value


def recommendations(groups: Sequence[Group], score: str = "knn") -> list[Recommendation]:
    """One for each cell and each penalty in it."""
    measure = judge(score)
    cells = (judged_by(cell, measure) for cell in cells_of(groups))
    return [_recommend(judged, penalty, measure) for judged in cells for penalty in judged.cell.penalties]


def judged_by(cell: Cell, measure: Measure) -> Judged:
    """Groups with a run that collapsed or failed, or whose seeds differ far more than others', are left out.

    The seeds that remain of such a group are those that went well: they would flatter it.
    """
    scores: dict[str, dict[Any, float]] = {}
    left_out: dict[str, str] = {}
    for group in cell.groups:
        found = {seed: value for seed, run in group.by_seed.items() if (value := measure.value(run)) is not None}
        scores[group.label] = {seed: value for seed, value in found.items() if math.isfinite(value)}
        if group.label != BASELINE and (why := _why_left_out(group, found, measure)):
            left_out[group.label] = why
    if not scores.get(BASELINE):
        return Judged(cell, scores, None, left_out)
    modeled = {name: own for name, own in scores.items() if name not in left_out}
    while (name := seed_effects(modeled).unsteady()) is not None:
        left_out[name] = "its seeds differ far more than those of all others"
        del modeled[name]
    return Judged(cell, scores, seed_effects(modeled), left_out)


def _why_left_out(group: Group, found: Mapping[Any, float], measure: Measure) -> str:
    """Empty where it can be judged."""
    if group.failures:
        count = f"{len(group.failures)} of {len(group.runs) + len(group.failures)} runs failed"
        return f"{count} ({group.failures[0].reason})"
    if collapsed := sum(collapse_of(run) is not None for run in group.runs):
        return f"{collapsed} of {len(group.runs)} runs collapsed"
    return "" if all(map(math.isfinite, found.values())) else f"{measure.short} is not finite in a run"


def near_best(model: SeedEffects, names: Sequence[str]) -> str:
    """The first of the names that is within one standard error of the best."""
    best = max(names, key=model.effects.__getitem__)

    def is_near(name: str) -> bool:
        error = model.standard_error(best, name)
        return name == best or model.effects[best] - model.effects[name] <= error

    return next(filter(is_near, names))


def _recommend(judged: Judged, penalty: Series, measure: Measure) -> Recommendation:
    gains, model = judged.gains(penalty), judged.model
    if model is None or not gains:
        missing = f"no run at gamma 0 has a {measure.short} score" if model is None else "no gamma can be judged"
        return Recommendation(judged, penalty, None, missing, None, None, {}, (), _left_out(judged, penalty))
    best = max(gains, key=lambda name: gains[name].value)
    clear = [name for name, gain in gains.items() if gain.value > 0 and excludes_zero(gain)]
    chosen = near_best(model, clear) if clear else None
    shown = chosen or best
    gamma = None if chosen is None else _gamma(penalty, chosen)
    return Recommendation(
        judged,
        penalty,
        gamma,
        "" if chosen else _why_none(model, gains[best]),
        shown,
        gains[shown],
        _over_controls(judged, shown, len(gains)),
        _on_other_seeds(judged, penalty),
        (*_harmful(penalty, gains), *_left_out(judged, penalty), *_alone(judged), *_edge(penalty, best, gains[best])),
    )


def _why_none(model: SeedEffects, best: Interval) -> str:
    if not model.freedom:
        return "one seed leaves no estimate of the noise"
    return "no gamma is told apart from gamma 0" if best.value > 0 else "no gamma scores above gamma 0"


def _over_controls(judged: Judged, shown: str, gammas: int) -> dict[str, tuple[str, Interval]]:
    """Against the best of each kind of control, by intervals that hold for every gamma and every such control."""
    found = {}
    for kind in judged.cell.controls:
        model, names = judged.model, judged.held(kind)
        if model is not None and names:
            best = max(names, key=model.effects.__getitem__)
            found[kind.name] = (best, model.difference(shown, best, gammas * len(names)))
    return found


def _on_other_seeds(judged: Judged, penalty: Series) -> tuple[OnOtherSeed, ...]:
    """Each seed in turn judges what the others chose: gamma 0, or the smallest gamma near their best."""
    found, scores = [], judged.modeled
    controls = [name for kind in judged.cell.controls for name in judged.held(kind)]
    seeds = sorted(scores[BASELINE], key=str)
    for seed in seeds if len(seeds) > 1 else ():
        others = {name: {s: value for s, value in own.items() if s != seed} for name, own in scores.items()}
        model = seed_effects(others)
        on_seed = {name: own[seed] for name, own in scores.items() if seed in own and name in model.effects}
        names = [name for name in (BASELINE, *judged.held(penalty)) if name in on_seed]
        chosen = near_best(model, names)
        rivals = [name for name in controls if name in on_seed]
        rival = max(rivals, key=model.effects.__getitem__, default=None)
        over_control = None if rival is None else on_seed[chosen] - on_seed[rival]
        found.append(OnOtherSeed(seed, chosen, on_seed[chosen] - on_seed[BASELINE], over_control))
    return tuple(found)


def _left_out(judged: Judged, penalty: Series) -> tuple[str, ...]:
    said = []
    for series in (penalty, *judged.cell.controls):
        kind = series.name if series.is_control else "gamma"
        for value, group in zip(series.values, series.groups, strict=True):
            if group.label in judged.left_out:
                said.append(f"{kind} {value} is left out: {judged.left_out[group.label]}")
    return tuple(said)


def _harmful(penalty: Series, gains: Mapping[str, Interval]) -> tuple[str, ...]:
    found = zip(penalty.values, (gains.get(group.label) for group in penalty.groups), strict=True)
    below = [value for value, gain in found if gain is not None and gain.value < 0 and excludes_zero(gain)]
    return (f"gamma {', '.join(below)} scores below gamma 0",) if below else ()


def _alone(judged: Judged) -> tuple[str, ...]:
    """That seeds do not count, since there is no gamma 0 to compare with."""
    seeds = dict.fromkeys(seed for own in judged.modeled.values() for seed in own)
    alone = [str(seed) for seed in seeds if seed not in judged.scores[BASELINE]]
    return (f"seed {', '.join(alone)} does not count, since gamma 0 is missing there",) if alone else ()


def _edge(penalty: Series, best: str, gain: Interval) -> tuple[str, ...]:
    """That a better gamma may lie outside of those that were tried."""
    if gain.value <= 0 or len(penalty.groups) < 2 or best != penalty.groups[-1].label:
        return ()
    return (f"the best gamma, {penalty.values[-1]}, is the largest that was tried",)


def _placed(interval: Interval) -> str:
    if not excludes_zero(interval):
        return "not told apart from"
    return "above" if interval.value > 0 else "below"


def _gamma(penalty: Series, label: str) -> float | None:
    return next(group.gamma for group in penalty.groups if group.label == label)
