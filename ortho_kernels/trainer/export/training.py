"""What an export says of how its encoder was trained, and how well it did."""

from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any, NamedTuple

from ..report.intervals import share_interval
from ..report.record import RunRecord


class Score(NamedTuple):
    protocol: str  # and what else tells an evaluation from others
    data: str
    accuracy: float
    low: float  # of its 95 % interval
    high: float


def describe_training(configuration: dict[str, Any], network: str, step: int) -> dict[str, Any]:
    """As JSON holds it: which encoder of the run, after how many steps, and the options without names of its files."""
    return {"network": network, "step": step, "options": _without_places(configuration)}


def read_scores(run: Path, training: dict[str, Any]) -> list[Score]:
    """The scores of this encoder in the run's folder: those of the run's end, then later evaluations.

    None of a run that has not finished. Raises TrainerError for files that can't be read.
    """
    if not (run / "results.json").is_file():
        return []
    record = RunRecord.read(run)
    ours = training["network"], training["step"]
    found = []
    if (record.results.get("network"), record.results["steps"]) == ours:
        found += list(_scores_at_the_end(record.results, training["options"]))
    for name, content in record.evaluated.items():
        if "accuracy" in content and (content.get("network"), content.get("step")) == ours:
            found.append(Score(name, *(content[key] for key in ("data", "accuracy", "low", "high"))))
    return found


def _scores_at_the_end(results: dict[str, Any], options: dict[str, Any]) -> Iterator[Score]:
    for key, title in (("knn", "kNN"), ("linear_probe", "linear probe")):
        if results.get(key) is not None:
            images = results["test_images"]
            interval = share_interval(round(results[key] * images), images)
            yield Score(title, options["evaluation"].get("data") or options["data"]["name"], *astuple(interval))


def _without_places(options: dict[str, Any]) -> dict[str, Any]:
    """Without files of the machine: options that name one, and values that can't be anything else."""
    return {
        key: _without_places(value) if isinstance(value, dict) else value
        for key, value in options.items()
        if isinstance(value, dict) or not (_names_a_place(key, value) or str(value).startswith(("/", "~", ".")))
    }


def _names_a_place(key: str, value: Any) -> bool:
    return key in ("root", "prolongs") or (key == "classes" and isinstance(value, str))
