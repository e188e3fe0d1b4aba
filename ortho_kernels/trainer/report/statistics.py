"""Means over the seeds of a group, and differences between two groups, seed by seed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .groups import Group, baseline_of, common_and_own, control_of
from .intervals import Interval, mean_interval, paired_difference, share_interval
from .measures import Measure


@dataclass(frozen=True)
class Statistic:
    """Of one measure over the runs of a group."""

    interval: Interval
    count: int  # of the runs that have a value


def statistic(group: Group, measure: Measure) -> Statistic | None:
    """The mean over seeds; of a single run the share of hits, with the interval that the test set leaves.

    None where no run has a value.
    """
    found = [(value, measure.trials(run)) for run in group.runs if (value := measure.value(run)) is not None]
    values = [value for value, _ in found]
    if not values:
        return None
    if not all(map(math.isfinite, values)):
        return Statistic(Interval(sum(values) / len(values)), len(values))
    if len(values) > 1:
        return Statistic(mean_interval(values), len(values))
    [(value, trials)] = found
    if not trials:
        return Statistic(Interval(value), 1)
    bounds = share_interval(round(value * trials), trials)
    return Statistic(Interval(value, bounds.low, bounds.high), 1)


@dataclass(frozen=True)
class Contrast:
    """A group against the one that it is compared with."""

    group: Group
    other: Group
    role: str  # of the other: baseline, control or other

    def difference(self, measure: Measure) -> Statistic | None:
        """Group minus other, over the seeds for which both have a value; None where there is none."""
        pairs = []
        for seed, run in self.group.by_seed.items():
            if seed in self.other.by_seed:
                before, after = measure.value(self.other.by_seed[seed]), measure.value(run)
                if before is not None and after is not None:
                    pairs.append((before, after))
        if not pairs:
            return None
        if not all(math.isfinite(value) for pair in pairs for value in pair):
            return Statistic(Interval(math.nan), len(pairs))
        return Statistic(paired_difference(*zip(*pairs, strict=True)), len(pairs))

    @property
    def title(self) -> str:
        """What both labels have in common is said once."""
        common, (own, others) = common_and_own([self.group.label, self.other.label])
        return ", ".join(filter(None, [common, f"{own} − {others}"]))

    @property
    def seeds(self) -> int:
        """How many both have."""
        return len(self.group.by_seed.keys() & self.other.by_seed.keys())


def contrasts_of(groups: Sequence[Group]) -> list[Contrast]:
    """Each group against its baseline, then each against its control."""
    against = {"baseline": baseline_of, "control": control_of}
    return [
        Contrast(group, other, role)
        for role, find in against.items()
        for group in groups
        if (other := find(group, groups)) is not None
    ]


def contrast_of_two(groups: Sequence[Group]) -> Contrast | None:
    """Of two groups; the second against the first where neither is the other's baseline or control."""
    if len(groups) != 2:
        return None
    return next(iter(contrasts_of(groups)), Contrast(groups[1], groups[0], "other"))


def excludes_zero(interval: Interval) -> bool:
    """Whether the values have one sign throughout. One without a width, of values that happen to agree, shows nothing."""
    return interval.half_width > 0 and (interval.low > 0 or interval.high < 0)
