"""The page of detectors: their scores, their precision over recall, their training, and test pictures with boxes."""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import tables
from .atomic_writing import write_atomically
from .configuration import machines
from .detected import MEASURES, SCORES, Result, as_record, class_measures, classes_of
from .groups import Group, families_of, groups_of
from .lead import title_of
from .plots import boxes, detection
from .statistics import contrasts_of
from .style import PAGE, STYLE, details, figure, note, section
from .tables import Body, Row, Table, difference_table, text_cell, value_tables

READING = (
    "AP is the mean over ten IoUs from 0.5 to 0.95; AP50 and AP75 are at one IoU. Each is the mean over classes and over "
    "101 recalls, as COCO defines it. Difficult objects are neither found nor missed. VOC's own AP is another number."
)
SEVERAL = "Means over seeds stand with ± their 95 % interval (Student's t). Differences are paired by seed."
ALONE = "Each detector was trained once: repeat with other seeds before a small difference is called an effect."
CLEAR = "Bold where the 95 % interval of a difference excludes 0, gray where it includes 0 or one seed gives none."
PRECISION = (
    "The highest precision at this recall or a larger one, at an IoU of 0.5. The area below is AP50. A curve falls to 0 at "
    "the recall that no threshold of the score reaches."
)
LOSSES = "The loss of a step and its four parts, whose sum it is."
PICTURES = (
    f"Predictions with a score of {boxes.LEAST_SCORE} or more. Of each row the first picture shows the objects. Of several "
    "seeds the first one is shown."
)


def write_detection_page(path: Path, results: Sequence[Result], examples: Sequence[Mapping[str, Any]] = ()) -> None:
    """Writes the self-contained page of one detector or many, whole or not at all.

    Each of `results` is what a detection's file holds, all with the same classes:

    - label: str, the encoder's. settings: dict, those of the encoder's run as its results.json has them, with its seed;
      encoders that differ in the seed alone make one row. Of random weights, what describes them.
    - detector: "c4" or "fpn". options: dict of all that decides the result. steps, train_images, test_images: int.
      seconds: float. machine: dict, as `describe_machine` gives it.
    - classes: list of all names, whose labels count from 1. ap, ap50, ap75 and per_class, as in
      `dataclasses.asdict(Precision)`.
    - losses: dict of columns of one length: step, loss, and loss_objectness, loss_rpn_box_reg, loss_classifier and
      loss_box_reg, as torchvision calls them.

    Each of `examples` is a test picture:

    - name: str. pixels: uint8 `(3, height, width)`. truth: dict of boxes, labels and difficult: `vars(boxes)` of its Boxes.
    - predictions: a list of boxes, labels and scores, one for each of `results`, in pixels of this picture.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, render(results, examples))


def render(results: Sequence[Result], examples: Sequence[Mapping[str, Any]] = ()) -> str:
    records = [as_record(each) for each in results]
    groups = groups_of(records)
    classes = classes_of(records)
    places = {id(record): place for place, record in enumerate(records)}
    shown = {places[id(group.runs[0])]: group.label for group in groups}
    pictures = boxes.example_pictures(examples, shown, results[0]["classes"]) if examples else ""
    sections = {
        "Scores": _scores(groups),
        "Classes": _classes(groups),
        "Precision and recall": figure(detection.precision_and_recall(groups), "Precision and recall", PRECISION)
        + details("Each class", detection.precision_by_class(groups, list(classes))),
        "Test pictures": figure(pictures, "Test pictures", PICTURES) if pictures else "",
        "Training": figure(detection.losses(groups), "Losses", LOSSES) + details("All options", _options(groups)),
        "Machine": machines(records),
    }
    return PAGE.format(
        head="",
        title=html.escape(f"Detection: {_named(groups)}"),
        style=STYLE + tables.STYLE + boxes.STYLE,
        lead=html.escape(_lead(results)),
        alarms="",
        sections="\n".join(section(title, text) for title, text in sections.items() if text),
    )


def _named(groups: Sequence[Group]) -> str:
    return f"{len(groups)} encoders" if len(groups) > 2 else title_of([group.label for group in groups])


def _lead(results: Sequence[Result]) -> str:
    kinds = " and ".join(dict.fromkeys(str(each["detector"]).upper() for each in results))
    objects = [sum(found["objects"] for found in each["per_class"].values()) for each in results]
    steps, train, test = (_range(results, key) for key in ("steps", "train_images", "test_images"))
    classes = max(len(each["per_class"]) for each in results)
    return (
        f"Faster R-CNN ({kinds}), trained for {steps} steps on {train} pictures. "
        f"Scored on {test} pictures with {max(objects):,} objects of {classes} classes."
    )


def _range(results: Sequence[Result], key: str) -> str:
    return " or ".join(f"{value:,}" for value in dict.fromkeys(each[key] for each in results))


def _scores(groups: Sequence[Group]) -> str:
    families = families_of(groups)
    several = any(len(group.runs) > 1 for group in groups)
    contrasts = contrasts_of(groups) if len(groups) > 2 else []  # two have theirs beside their values
    differences = f"<h3>Differences</h3>{difference_table(contrasts, MEASURES)}" if contrasts else ""
    notes = [READING, *[SEVERAL if several else ALONE], *[CLEAR] * (len(groups) == 2 or bool(contrasts))]
    return value_tables(families, {"Scores": MEASURES}) + differences + note(" ".join(notes))


def _classes(groups: Sequence[Group]) -> str:
    runs = [run for group in groups for run in group.runs]
    topics = {title: class_measures(runs, key) for key, title in SCORES.items()}
    counted = note("In brackets: the objects in the test pictures that count.")
    return value_tables(families_of(groups), topics) + counted * (len(groups) <= tables.FEW_GROUPS)


def _options(groups: Sequence[Group]) -> str:
    """A column for each group, a row for each option of its detector, and what it took."""
    options = dict.fromkeys(key for group in groups for key in group.runs[0].results["options"])
    rows = [
        Row(key, [text_cell(json.dumps(group.runs[0].results["options"].get(key))) for group in groups])
        for key in options
    ]
    seconds = [[run.results["seconds"] for run in group.runs] for group in groups]
    rows.append(Row("minutes of a run", [text_cell(f"{sum(each) / len(each) / 60:.1f}") for each in seconds]))
    return Table([group.label for group in groups], [Body(rows)], is_text=True).render()
