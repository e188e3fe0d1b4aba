"""Which groups have scores that compare: those that were judged by the same pictures in the same way."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .groups import Group

NOT_THE_MEASURE = ("evaluation.network", "evaluation.batch_size")  # what is judged; how many at a time
NOT_THE_PICTURES = ("data.views.", "data.size", "data.pipeline", "data.memory_gib")  # but what is made of them


def parts_of(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Groups that were judged alike, by what sets them apart from the others: those of two parts do not compare."""
    collected: dict[str, list[Group]] = {}
    for group in groups:
        collected.setdefault(json.dumps(_judged(group), sort_keys=True, default=str), []).append(group)
    parts = list(collected.values())
    judged = [_judged(part[0]) for part in parts]
    keys = dict.fromkeys(key for one in judged for key in one)
    differing = [key for key in keys if len({str(one.get(key)) for one in judged}) > 1]
    names = [", ".join(f"{key}={one.get(key)}" for key in differing) for one in judged]
    return dict(zip(names, parts, strict=True))


def apart(parts: Mapping[str, Sequence[Group]]) -> list[str]:
    """The warning that a report of several parts begins with."""
    if len(parts) == 1:
        return []
    return [
        f"These runs were judged in {len(parts)} ways ({'; '.join(parts)}). Scores of different pictures or protocols do "
        "not compare, so each way has tables and figures of its own."
    ]


def cautions(groups: Sequence[Group]) -> list[str]:
    """What to bear in mind where groups that were judged alike are not alike otherwise."""
    said = []
    dimensions = _distinct(groups, "representation_dimensions")
    if len(dimensions) > 1:
        counts = " and ".join(map(str, dimensions))
        said.append(f"The features have {counts} dimensions: ranks of different dimensions do not compare.")
    if len(_distinct(groups, "planned_steps")) > 1:
        said.append("The groups were trained for different numbers of steps.")
    return said


def _distinct(groups: Sequence[Group], key: str) -> list[Any]:
    found = dict.fromkeys(run.results.get(key) for group in groups for run in group.runs)
    return sorted(value for value in found if value is not None)


def _judged(group: Group) -> dict[str, Any]:
    """By what its scores were found: the pictures, how many, and the settings of the evaluation."""
    settings, results = group.settings, group.runs[0].results
    own = settings.get("evaluation.data") is None
    pictures = {
        key: value
        for key, value in settings.items()
        if own and key.startswith("data.") and not key.startswith(NOT_THE_PICTURES)
    }
    measure = {k: v for k, v in settings.items() if k.startswith("evaluation.") and k not in NOT_THE_MEASURE}
    counts = {key: results.get(key) for key in ("train_images", "test_images")}
    return {**pictures, **measure, **counts}
