"""The scores of later evaluations, as measures of the runs that they were found for."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from .measures import Measure
from .record import RunRecord


class Evaluation(NamedTuple):
    """Two with all of this in common are the same measure."""

    name: str  # of its file
    data: str
    train_images: int | None
    test_images: int | None

    @classmethod
    def of(cls, name: str, content: dict[str, Any]) -> "Evaluation":
        return cls(name, str(content.get("data")), content.get("train_images"), content.get("test_images"))


def later_scores(runs: Sequence[RunRecord]) -> list[Measure]:
    """One for each evaluation of any run, sorted by name."""
    found = sorted(
        {Evaluation.of(name, content) for run in runs for name, content in _scored(run)},
        key=lambda one: tuple(map(str, one)),
    )
    names = [evaluation.name for evaluation in found]
    return [_measure(evaluation, ambiguous=names.count(evaluation.name) > 1) for evaluation in found]


def _measure(evaluation: Evaluation, ambiguous: bool) -> Measure:
    def value(run: RunRecord) -> float | None:
        content = run.evaluated.get(evaluation.name, {})
        return content.get("accuracy") if Evaluation.of(evaluation.name, content) == evaluation else None

    protocol, *others = evaluation.name.split("-")
    data = [] if evaluation.data in others else [evaluation.data]
    images = [f"{evaluation.train_images} + {evaluation.test_images} images"] if ambiguous else []
    title = ", ".join([protocol, *data, *others, *images])
    return Measure(title, title, value, is_share=True, trials=lambda run: evaluation.test_images)


def _scored(run: RunRecord) -> list[tuple[str, dict[str, Any]]]:
    return [(name, content) for name, content in run.evaluated.items() if "accuracy" in content]
