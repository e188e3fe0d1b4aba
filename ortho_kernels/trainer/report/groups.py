"""Runs that differ in the seed alone make a group; a group has a baseline and a control among the others."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, NamedTuple, TypeVar

from .record import RunRecord

Item = TypeVar("Item")
MOST_NAMED = 3  # settings in a label
SEED = re.compile(r"\bseed=\S+?(,\s*|\s|$)")  # in the titles that a sweep gives its runs


class Failure(NamedTuple):
    """A run that has no results, since something stopped it."""

    settings: dict[str, Any]
    reason: str


@dataclass(frozen=True)
class Group:
    """The runs of one configuration, one for each seed."""

    label: str  # theirs, without the seed
    runs: tuple[RunRecord, ...]
    failures: tuple[Failure, ...] = ()  # of other seeds

    @property
    def settings(self) -> dict[str, Any]:
        """Without the seed."""
        return _settings(self.runs[0], without=("seed",))

    @property
    def by_seed(self) -> dict[Any, RunRecord]:
        return {_seed(run): run for run in self.runs}

    @property
    def gamma(self) -> float | None:
        return self.settings.get("penalty.gamma")

    @property
    def is_baseline(self) -> bool:
        return self.gamma == 0

    @property
    def is_control(self) -> bool:
        return self.settings.get("penalty.name") == "decay" and not self.is_baseline


def groups_of(runs: Sequence[RunRecord]) -> list[Group]:
    """In the order in which their first runs are given.

    A seed counts once: of two runs with all settings in common the later one is taken. Where their labels differ, which
    a user has done on purpose, both are taken, in two groups.
    """
    groups = []
    for alike in _collected(runs, lambda run: _identity(run, ("seed",))):
        repeated = len(set(map(_seed, alike))) < len(alike)
        for members in _collected(alike, _label_without_seed) if repeated else [alike]:
            groups.append(_group(list({_seed(run): run for run in members}.values())))
    return [_told_apart(group, [other for other in groups if other.label == group.label]) for group in groups]


def with_failures(groups: Sequence[Group], failures: Sequence[Failure]) -> list[Group]:
    """The groups with the failures that are of their configuration."""
    known = [({key: value for key, value in one.settings.items() if key != "seed"}, one) for one in failures]
    return [
        replace(group, failures=tuple(one for settings, one in known if settings == group.settings)) for group in groups
    ]


def repeats_in(runs: Sequence[RunRecord], groups: Sequence[Group]) -> list[RunRecord]:
    """The runs that `groups_of(runs)` has not taken."""
    taken = {id(run) for group in groups for run in group.runs}
    return [run for run in runs if id(run) not in taken]


def varied(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """The settings in which groups differ, with the value that each group has, None where it has none.

    Options that one method, network or penalty has and another lacks go with that choice, and are left out.
    """
    every = [group.settings for group in groups]
    values = {key: [settings.get(key) for settings in every] for key in dict.fromkeys(key for s in every for key in s)}
    differing = {key: found for key, found in values.items() if any(value != found[0] for value in found)}
    chosen = tuple(key.removesuffix("name") for key in differing if key.endswith(".name"))
    return {
        key: found
        for key, found in differing.items()
        if not key.startswith(chosen) or all(key in settings for settings in every)
    }


def alike_but(groups: Sequence[Group], *options: str) -> list[list[Group]]:
    """Groups that differ in these options alone stand together. A name that ends in a dot is a whole group of options."""
    return _collected(groups, lambda group: _identity(group.runs[0], ("seed", *options)))


def families_of(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups that differ in the options of the penalty alone stand together."""
    return alike_but(groups, "penalty.")


def gamma_series(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups that differ in gamma alone, from the weakest up, where there are two gammas above 0 at least."""
    alike = alike_but([group for group in groups if group.gamma], "penalty.gamma")
    return [sorted(series, key=lambda group: group.gamma or 0.0) for series in alike if len(series) > 1]


def common_and_own(labels: Sequence[str]) -> tuple[str, list[str]]:
    """What labels have in common between their commas, and what is left of each; where one has nothing left, all."""
    parts = [label.split(", ") for label in labels]
    common = [part for part in parts[0] if all(part in others for others in parts)]
    own = [", ".join(part for part in one if part not in common) for one in parts]
    return (", ".join(common), own) if all(own) else ("", list(labels))


def baseline_of(group: Group, groups: Sequence[Group]) -> Group | None:
    """The group that differs in the options of the penalty alone, and has none: gamma 0.

    Of several the one that differs in gamma alone is taken, since its penalty is measured in the same way.
    """
    if group.is_baseline:
        return None
    relatives = [other for other in groups if other.is_baseline and _family(other) == _family(group)]
    alike = [other for other in relatives if _but_gamma(other) == _but_gamma(group)]
    return next(iter([*alike, *relatives]), None)


def control_of(group: Group, groups: Sequence[Group]) -> Group | None:
    """The group that differs in the options of the penalty alone, and decays the weights: penalty=decay.

    Of several the one with the same gamma is taken. Where none has it, there is no choice that means anything.
    """
    if group.is_baseline or group.is_control:
        return None
    relatives = [other for other in groups if other.is_control and _family(other) == _family(group)]
    alike = [other for other in relatives if other.gamma == group.gamma]
    return next(iter(alike or (relatives if len(relatives) == 1 else [])), None)


def _group(runs: Sequence[RunRecord]) -> Group:
    words = zip(*(_label_without_seed(run).split() for run in runs), strict=False)
    common = " ".join(word for word, *_ in takewhile(lambda same: len(set(same)) == 1, words))
    return Group(common.strip(",") or _described(runs[0]), tuple(runs))


def _told_apart(group: Group, namesakes: Sequence[Group]) -> Group:
    """With what it differs in where other groups have the same label, or else a number."""
    if len(namesakes) == 1:
        return group
    place = namesakes.index(group)
    found = [f"{key}={values[place]}" for key, values in varied(namesakes).items()]
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return Group(f"{group.label} ({', '.join(found[:MOST_NAMED]) + more or place + 1})", group.runs)


def _described(run: RunRecord) -> str:
    """By the settings, where the label says the seed alone."""
    settings = run.results["settings"]
    if "method.name" not in settings:
        return run.label
    gamma = settings.get("penalty.gamma")
    penalty = "baseline" if gamma == 0 else f"{settings.get('penalty.name')} {gamma}"
    return f"{settings['method.name']}, {penalty}"


def _label_without_seed(run: RunRecord) -> str:
    return SEED.sub("", run.label).strip(" ,")


def _seed(run: RunRecord) -> Any:
    return run.results["settings"].get("seed")


def _family(group: Group) -> str:
    return _identity(group.runs[0], ("seed", "penalty."))


def _but_gamma(group: Group) -> str:
    return _identity(group.runs[0], ("seed", "penalty.gamma"))


def _identity(run: RunRecord, without: tuple[str, ...]) -> str:
    """The settings as a text that two runs share if they agree. Prolonged runs each have a run of their own behind
    them; that it had as many steps is what counts."""
    settings = _settings(run, without)
    if settings.get("prolongs"):
        settings["prolongs"] = str(settings["prolongs"]).rpartition(" ")[2]
    return json.dumps(settings, sort_keys=True, default=str)


def _settings(run: RunRecord, without: tuple[str, ...]) -> dict[str, Any]:
    """Names that end in a dot leave out a whole group of options."""
    return {
        key: value
        for key, value in run.results["settings"].items()
        if not any(key.startswith(name) if name.endswith(".") else key == name for name in without)
    }


def _collected(items: Sequence[Item], key: Callable[[Item], Any]) -> list[list[Item]]:
    """Items of one key together, in the order of the first ones."""
    by_key: dict[Any, list[Item]] = {}
    for item in items:
        by_key.setdefault(key(item), []).append(item)
    return list(by_key.values())
