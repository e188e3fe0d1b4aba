"""The results of detectors as records of the runs whose encoders they have, and what is measured of them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .groups import Group, groups_of
from .measures import Measure, result
from .record import RunRecord
from .statistics import contrast_of_two, contrasts_of
from .text_summary import aligned, difference_text, legend, seeds_named, value_text

Result = Mapping[str, Any]
SCORES = {"ap": "AP", "ap50": "AP50", "ap75": "AP75"}  # by their keys in a result
MEASURES = [Measure(title, title, result(key), is_share=True, headline=key == "ap") for key, title in SCORES.items()]


def as_record(detected: Result) -> RunRecord:
    """Settings of the detector stand beside the encoder's, so that only detectors that were trained alike are compared."""
    own = {f"detection.{key}": value for key, value in detected["options"].items() if key != "seed"}
    return RunRecord(
        folder=Path(),
        results={**detected, "settings": {**detected["settings"], **own}},
        metrics=detected["losses"],
        weights={},
        representation=[],
        configuration="",
    )


def class_measures(records: Sequence[RunRecord], key: str) -> list[Measure]:
    """One score of each class that a test picture holds; its title says how many objects count."""

    def of_class(name: str) -> Callable[[RunRecord], float | None]:
        return lambda run: run.results["per_class"].get(name, {}).get(key)

    classes = classes_of(records)
    return [Measure(f"{name} ({objects:,})", name, of_class(name), is_share=True) for name, objects in classes.items()]


def classes_of(records: Sequence[RunRecord]) -> dict[str, int]:
    """Those that are scored, and how many objects of each count."""
    return {
        name: found["objects"] for record in reversed(records) for name, found in record.results["per_class"].items()
    }


def detection_lines(results: Sequence[Result]) -> list[str]:
    """AP, AP50 and AP75 of each encoder, and their differences, as a table for a terminal. Reads what
    `write_detection_page` reads."""
    groups = groups_of([as_record(each) for each in results])
    lines = [["in percent", *(measure.short for measure in MEASURES)]]
    lines += [[seeds_named(group), *(_value(group, measure) for measure in MEASURES)] for group in groups]
    contrasts = contrasts_of(groups) or [pair for pair in [contrast_of_two(groups)] if pair is not None]
    lines += [[pair.title, *(difference_text(pair, measure) for measure in MEASURES)] for pair in contrasts]
    return [*aligned(lines), *legend(lines)]


def _value(group: Group, measure: Measure) -> str:
    return value_text(group, measure).replace(" %", "")
