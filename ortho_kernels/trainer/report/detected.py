"""The results of detectors as records of the runs whose encoders they have, and what is measured of them."""

from collections.abc import Mapping, Sequence
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


def record_of(detected: Result) -> RunRecord:
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
    """One score of each class that a test picture holds, in the order of the classes."""
    return [_of_class(name, key) for name in classes_of(records)]


def classes_of(records: Sequence[RunRecord]) -> list[str]:
    """Those that are scored."""
    return list(dict.fromkeys(name for record in records for name in record.results["per_class"]))


def _of_class(name: str, key: str) -> Measure:
    return Measure(name, name, lambda run: run.results["per_class"].get(name, {}).get(key), is_share=True)


def detection_lines(results: Sequence[Result]) -> list[str]:
    """AP, AP50 and AP75 of each encoder, and their differences, as a table for a terminal. Reads what
    `write_detection_page` reads."""
    groups = groups_of([record_of(each) for each in results])
    lines = [["in percent", *(measure.short for measure in MEASURES)]]
    lines += [[seeds_named(group), *(_value(group, measure) for measure in MEASURES)] for group in groups]
    contrasts = contrasts_of(groups) or [pair for pair in [contrast_of_two(groups)] if pair is not None]
    lines += [[pair.title, *(difference_text(pair, measure) for measure in MEASURES)] for pair in contrasts]
    return [*aligned(lines), *legend(lines)]


def _value(group: Group, measure: Measure) -> str:
    return value_text(group, measure).replace(" %", "")
