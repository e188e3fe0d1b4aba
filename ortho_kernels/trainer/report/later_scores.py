"""The scores of later evaluations, as measures of the runs that they were found for."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from .measures import Measure
from .record import RunRecord


class Evaluation(NamedTuple):
    """Two with all of this in common are the same measure."""

    title: str  # protocol, data, and what else differs from the defaults
    origin: str  # what the pictures were made from
    train_images: int
    test_images: int

    @classmethod
    def of(cls, name: str, content: dict[str, Any]) -> "Evaluation":
        """From its file. Its name leaves out the data where they are the run's own."""
        protocol, *others = name.split("-")
        data = [] if content["data"] in others else [content["data"]]
        title = ", ".join([protocol, *data, *others])
        return cls(title, content.get("data_origin", ""), content["train_images"], content["test_images"])


def later_scores(runs: Sequence[RunRecord]) -> list[Measure]:
    """One for each evaluation of any run, sorted by title."""
    found = sorted({evaluation for run in runs for evaluation in _scores(run)})
    titles = [evaluation.title for evaluation in found]
    return [_measure(evaluation, titles.count(evaluation.title) > 1) for evaluation in found]


def _measure(evaluation: Evaluation, ambiguous: bool) -> Measure:
    trials = evaluation.test_images
    pictures = [f"{evaluation.train_images:,} + {trials:,} images", evaluation.origin] if ambiguous else []
    title = ", ".join(filter(None, [evaluation.title, *pictures]))
    return Measure(title, title, lambda run: _scores(run).get(evaluation), is_share=True, trials=lambda run: trials)


def _scores(run: RunRecord) -> dict[Evaluation, float]:
    """Accuracies; what else is measured later has none."""
    scored = {name: content for name, content in run.evaluated.items() if "accuracy" in content}
    return {Evaluation.of(name, content): content["accuracy"] for name, content in scored.items()}
