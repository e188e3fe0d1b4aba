"""A later evaluation of a trained encoder: what its file holds, and how the file is called."""

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from ..config.exam_words import ExamSettings
from ..probes.protocols import Exam, Protocol
from ..report.evaluated import write_evaluation
from ..report.intervals import share_interval
from ..report.machine import describe_machine
from .exams import exam_seed, own_data
from .trained import Trained

LONGEST_NAME = 120  # characters: file systems take 255 bytes, with the suffix


def evaluate_with(
    protocol: Protocol,
    exam: Exam,
    trained: Trained,
    settings: ExamSettings,
    data: str | None = None,
    data_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of the file: what was asked, and the share of right answers with its 95 % interval.

    `data` is None for the pictures that the run was judged by.
    """
    start = time.monotonic()
    outcome = protocol.score(exam)
    interval = share_interval(outcome.correct, outcome.test_images)
    return {
        "protocol": protocol.name,
        "options": options_of(protocol),
        "data": data or own_data(trained),
        "data_options": dict(data_options or {}),
        "data_origin": exam.origin,
        "network": trained.network,
        "labels": settings.labels,
        "seed": exam.seed,
        "accuracy": interval.value,
        "low": interval.low,
        "high": interval.high,
        "correct": outcome.correct,
        "test_images": outcome.test_images,
        "train_images": outcome.train_images,
        "classes": len(exam.classes),
        "chance": exam.test.labels.bincount().max().item() / len(exam.test.labels),
        "chosen": outcome.chosen or {},
        "step": trained.step,
        "encoder_digest": trained.digest,
        "seconds": time.monotonic() - start,
        "machine": describe_machine(),
    }


def options_of(protocol: Protocol) -> dict[str, Any]:
    """All of them, as the file holds them."""
    return {key: value for key, value in asdict(protocol).items() if key != "name"}


def evaluation_name(
    protocol: Protocol,
    trained: Trained,
    settings: ExamSettings,
    data: str | None = None,
    data_options: Mapping[str, Any] | None = None,
) -> str:
    """Of the file: the protocol, then all that differs from what it would be without a word.

    `knn`, `knn-neighbors200`, `linear-cifar100-teacher-labels0.01`. Other words give another name.
    """
    parts = [protocol.name, *(f"{key}{spell(value)}" for key, value in _given(protocol))]
    if data_options or data not in (None, own_data(trained)):
        parts += [str(data), *(f"{key}{spell(value)}" for key, value in sorted((data_options or {}).items()))]
    if trained.config is not None and trained.network != trained.config.evaluation.network:
        parts.append(str(trained.network))
    if settings.labels < 1:
        parts.append(f"labels{settings.labels:g}")
    if exam_seed(trained, settings.seed) != exam_seed(trained, None):
        parts.append(f"seed{settings.seed}")
    for purpose, images in (("train", settings.train_images), ("test", settings.test_images)):
        if images is not None:
            parts.append(f"{purpose}{images}")
    return file_name("-".join(parts))


def write_evaluated(trained: Trained, name: str, content: dict[str, Any]) -> Path:
    """Writes the file; says so where there was one of that name."""
    folder = trained.results_folder
    replaced = (folder / f"{name}.json").exists()
    path = write_evaluation(folder, name, content)
    print(f"{path}{' (replaced)' if replaced else ''}", flush=True)
    return path


def _given(protocol: Protocol) -> list[tuple[str, Any]]:
    """The options that are not at their defaults."""
    given = []
    for field in fields(protocol):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        value = getattr(protocol, field.name)
        if field.name != "name" and value != default:
            given.append((field.name, value))
    return given


def spell(value: Any) -> str:
    """An option's value as a part of a name."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(spell, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def file_name(text: str) -> str:
    """What a file can be called; where that loses something, a digest of the text keeps names apart."""
    name = re.sub(r"[^\w.,=+-]", "_", text)
    if name == text and len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"
