"""What each of several groups scores, when all of them were trained with the same seeds: one model of all their runs.

    score = effect of the group + effect of the seed + noise

It is fitted by least squares (a randomized block design). The groups share one estimate of the noise, since the two or
three seeds of a single group say next to nothing about theirs. Of two groups, the interval is that of the paired t-test.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .decimation import Floats
from .intervals import CONFIDENCE, Interval

Scores = Mapping[str, Mapping[Any, float]]  # by group, then by seed
ROUNDING = 1e-9  # of a score: noise below it is none
UNSTEADY = 0.01  # the share of maps without an unsteady group in which one is found


@dataclass(frozen=True)
class SeedEffects:
    """Effects of groups, each minus that of the first, and of seeds, each minus their mean."""

    effects: dict[str, float]
    seeds: dict[Any, float]
    covariance: Floats  # of the effects, over the noise's variance: (groups, groups)
    noise: float  # its standard deviation; NaN where nothing is left to estimate it from
    freedom: int  # degrees of freedom of that estimate
    variances: dict[str, float]  # of what the model leaves unexplained, by group of several runs

    def standard_error(self, group: str, other: str) -> float:
        """Of the difference of their effects; NaN where there is no estimate of the noise."""
        contrast = np.array([(name == group) - (name == other) for name in self.effects], dtype=float)
        return self.noise * math.sqrt(float(contrast @ self.covariance @ contrast))

    def difference(self, group: str, other: str, choices: int = 1) -> Interval:
        """Group minus other. The intervals of so many differences hold all of them at once in 95 % of maps (Šidák), so
        one of them holds also where it was chosen for its size."""
        value = self.effects[group] - self.effects[other]
        if group == other or not math.isfinite(self.noise):
            return Interval(value)
        from scipy.stats import t  # half a second to import

        confidence = CONFIDENCE ** (1 / choices)
        half = float(t.ppf((1 + confidence) / 2, self.freedom)) * self.standard_error(group, other)
        return Interval(value, value - half, value + half)

    def unsteady(self) -> str | None:
        """The group whose seeds differ far more than those of all others, by Cochran's C test; never the first one.

        Shared noise would be too much for the others, and too little for this group.
        """
        first, *others = self.effects
        largest = max(self.variances, key=self.variances.__getitem__, default=first)
        if len(self.variances) < 3 or not self.noise > 0 or largest not in others:
            return None
        from scipy.stats import f

        count, freedom = len(self.variances), self.freedom / (len(self.effects) - 1)
        ratio = float(f.ppf(1 - UNSTEADY / count, freedom, (count - 1) * freedom))
        share = self.variances[largest] / sum(self.variances.values())
        return largest if share > ratio / (ratio + count - 1) else None


def seed_effects(scores: Scores) -> SeedEffects:
    """Of the runs whose seeds the first group has too; groups without any are left out.

    Raises ValueError where the first group has no score.
    """
    first, *others = scores
    seeds = list(scores[first])
    if not seeds:
        raise ValueError("the first group needs a score at least: the others are compared with it")
    names = [first, *(name for name in others if any(seed in scores[name] for seed in seeds))]
    runs = [(name, seed) for name in names for seed in seeds if seed in scores[name]]
    values = np.array([scores[name][seed] for name, seed in runs])
    design = np.array(
        [[*(name == other for other in names[1:]), *(seed == other for other in seeds)] for name, seed in runs],
        dtype=float,
    )
    coefficients, *_ = np.linalg.lstsq(design, values, rcond=None)
    unexplained = values - design @ coefficients
    freedom = len(runs) - design.shape[1]
    noise = math.sqrt(float(unexplained @ unexplained) / freedom) if freedom else math.nan
    covariance = np.zeros((len(names), len(names)))
    covariance[1:, 1:] = np.linalg.inv(design.T @ design)[: len(names) - 1, : len(names) - 1]
    of_seeds = coefficients[len(names) - 1 :]
    by_group = {name: [float(e) for e, run in zip(unexplained, runs, strict=True) if run[0] == name] for name in names}
    return SeedEffects(
        effects=dict(zip(names, [0.0, *coefficients.tolist()], strict=False)),
        seeds=dict(zip(seeds, (of_seeds - of_seeds.mean()).tolist(), strict=True)),
        covariance=covariance,
        noise=0.0 if noise < ROUNDING * float(np.abs(values).max()) else noise,
        freedom=freedom,
        variances={name: sum(e * e for e in own) / (len(own) - 1) for name, own in by_group.items() if len(own) > 1},
    )
