"""Scores of trained encoders, again or by other protocols, on their own pictures or on others.

    python -m ortho_kernels.trainer.evaluate RUN [RUN ...] protocol=knn,logistic data=cifar10 labels=0.1

A RUN is a finished run's folder, or a file that `export` has written. Each score becomes a file in RUN/evaluations (or
FILE.evaluations), which reports read. results.json stays as it is.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: idle threads that spin slow small machines down

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config.command_words import runs_and_options
from .config.exam_words import ExamSettings, chosen_protocols, with_protocol_options
from .options import option

Row = tuple[str, dict[str, Any]]  # an encoder's path, and what a file holds


@dataclass
class EvaluateSettings(ExamSettings):
    data: str | None = option(None, "source of other labeled pictures; by default those that the run was judged by")
    data_options: dict[str, Any] = option({}, "options of that source: {root: FOLDER}")


def main(words: Sequence[str]) -> None:
    settings_class = with_protocol_options(EvaluateSettings, words)
    if (given := runs_and_options(words, __doc__ or "", settings_class)) is None:
        return
    paths, settings = given
    from .runs.trained import (
        require_trained,  # here, since it takes its time to import: a wrong word is answered at once
    )

    for path in paths:
        require_trained(path)
    rows: list[Row] = []
    try:
        for path in paths:
            rows += evaluate_run(path, settings)
    finally:  # what was scored before an error
        if rows:
            print(format_table(rows))


def evaluate_run(path: Path, settings: Any) -> list[Row]:
    """Scores one encoder by each protocol; returns what the files hold, each with the encoder's path."""
    from .runs.evaluation_files import evaluate_with, evaluation_name, write_evaluated
    from .runs.exams import build_exam, load_pictures
    from .runs.trained import load_trained

    protocols = chosen_protocols(settings)
    trained = load_trained(path, settings.network)
    asked = settings.data, settings.data_options
    exam = build_exam(trained, load_pictures(trained, *asked), settings, progress=True)
    for protocol in protocols:
        protocol.check(exam)
    rows = []
    for protocol in protocols:
        content = evaluate_with(protocol, exam, trained, settings, *asked)
        write_evaluated(trained, evaluation_name(protocol, trained, settings, *asked), content)
        rows.append((str(path), content))
    return rows


def format_table(rows: Sequence[Row]) -> str:
    """A line for each evaluation: accuracy with its 95 % confidence interval (Wilson's), and what the protocol chose."""
    from .report.text_summary import aligned

    cells = [("run", "network", "protocol", "data", "labels", "train", "test", "accuracy", "95 % interval", "chosen")]
    for path, row in rows:
        cells.append(
            (
                path,
                row["network"] or "",
                row["protocol"],
                row["data"],
                f"{100 * row['labels']:.4g}%",
                f"{row['train_images']:,}",
                f"{row['test_images']:,}",
                f"{row['accuracy']:.2%}",
                f"{row['low']:.2%} to {row['high']:.2%}",
                ", ".join(f"{key.replace('_', ' ')} {value:.4g}" for key, value in row["chosen"].items()),
            )
        )
    return "\n".join(["", *(line.rstrip() for line in aligned(cells, left=len(cells[0])))])


if __name__ == "__main__":
    main(sys.argv[1:])
