"""The file of a detection: how it is called, what it holds, and what reports make of it."""

from collections.abc import Sequence
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..detection.average_precision import Precision
from ..detection.settings import RANDOM, DetectorSettings, DetectSettings
from ..detection.training import LOSSES
from ..detection.voc import VOC
from ..report.machine import describe_machine
from .evaluation_files import file_name, spell
from .exams import exam_seed
from .many_exams import record_of
from .trained import Trained

LOSS_ROWS = 100  # of the losses in the file
EXAMPLES = 4  # of the test pictures, the first ones: the file holds what is predicted on them
OF_THE_DETECTOR = {field.name for field in fields(DetectorSettings)} - {"detector", "seed"}


def detection_name(trained: Trained, settings: DetectSettings) -> str:
    """Of the file: the detector, then all that differs from what it would be without a word.

    `detection-c4`, `detection-fpn-steps200-short_side96-random`.
    """
    parts = [f"detection-{settings.detector}"]
    parts += [f"{key}{spell(value)}" for key, value in _given(settings).items()]
    if trained.config is not None and trained.network != trained.config.evaluation.network:
        parts.append(str(trained.network))
    if exam_seed(trained, settings.seed) != exam_seed(trained, None):
        parts.append(f"seed{settings.seed}")
    return file_name("-".join(parts))


def asked_of(trained: Trained, settings: DetectSettings, seed: int) -> dict[str, Any]:
    """All that decides the result; the settings are complete."""
    options = asdict(settings)
    return {
        "protocol": "detection",
        "detector": settings.detector,
        "options": {key: value for key, value in options.items() if key in OF_THE_DETECTOR},
        "root": str(Path(settings.root or "").expanduser().resolve()),
        "train": settings.train,
        "test": settings.test,
        "classes": settings.classes,
        "network": trained.network,
        "step": trained.step,
        "encoder_digest": trained.digest,
        "seed": seed,
    }


def outcome_of(losses: Tensor, predictions: Sequence[dict[str, Tensor]], precision: Precision) -> dict[str, Any]:
    """What the file holds of a training's losses `(steps, 4)`, and of what was found on the test pictures."""
    return {
        **asdict(precision),
        "steps": len(losses),
        "losses": loss_rows(losses),
        "predictions": [{key: values.tolist() for key, values in each.items()} for each in predictions[:EXAMPLES]],
        "machine": describe_machine(),
    }


def loss_rows(losses: Tensor) -> dict[str, list[float]]:
    """The mean of `loss` and its parts over the steps up to `step`, from the row before; at most LOSS_ROWS rows."""
    every = -(-len(losses) // LOSS_ROWS)
    parts = losses.split(every)
    ends = [min((place + 1) * every, len(losses)) for place in range(len(parts))]
    means = torch.stack([part.mean(0) for part in parts])
    columns = {name: means[:, column].tolist() for column, name in enumerate(LOSSES)}
    return {"step": ends, "loss": means.sum(1).tolist(), **columns}


def shown(trained: Trained, content: dict[str, Any]) -> dict[str, Any]:
    """The content, and what reports call its encoder: label and settings of its run."""
    record = record_of(trained)
    label, settings = record.label, record.results["settings"]
    if trained.network == RANDOM:
        label = f"random weights, seed={content['seed']}"
        settings = {key: value for key, value in settings.items() if key.startswith("backbone.")}
        settings |= {"encoder": RANDOM, "seed": content["seed"]}
    return {**content, "label": label, "settings": settings}


def examples(test: VOC, results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Test pictures with what each result's detector predicts on them, as the page takes them."""
    found = []
    for index in range(min(EXAMPLES, len(test))):
        pixels, boxes = test[index]
        predictions = [_as_tensors(each["predictions"][index]) for each in results]
        found.append({"name": boxes.name, "pixels": pixels, "truth": vars(boxes), "predictions": predictions})
    return found


def _as_tensors(prediction: dict[str, list[Any]]) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor(prediction["boxes"]).reshape(-1, 4),
        "labels": torch.tensor(prediction["labels"], dtype=torch.int64),
        "scores": torch.tensor(prediction["scores"]),
    }


def _given(settings: DetectSettings) -> dict[str, Any]:
    """The options that are not at their defaults and can change a result."""
    named = OF_THE_DETECTOR | {"train", "test", "classes"}
    given = {}
    for field in fields(settings):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        value = getattr(settings, field.name)
        if field.name in named and value != default:
            given[field.name] = value
    return given
