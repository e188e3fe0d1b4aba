"""metrics.csv and evaluations.csv: appended to while a run lasts, cut back to the checkpoint when it resumes."""

import contextlib
import csv
from pathlib import Path
from typing import TextIO

from ..errors import TrainerError


class MetricsFile:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: TextIO | None = None

    def open(self, step: int) -> list[dict[str, float]]:
        """Keeps the rows up to `step`, and returns them: those after it belong to work that is about to be done again."""
        try:
            rows = [row for row in read_metrics(self.path) if row["step"] <= step] if self.path.exists() else []
            self.file = open(self.path, "w", newline="")  # noqa: SIM115 (lives as long as the run)
        except OSError as error:
            raise TrainerError(f"Cannot write {self.path}: {error.strerror}.") from None
        for row in rows:
            self.write(row)
        return rows

    def write(self, row: dict[str, float]) -> None:
        assert self.file is not None
        writer = csv.writer(self.file, lineterminator="\n")
        try:
            if self.file.tell() == 0:
                writer.writerow(row)
            writer.writerow([int(value) if key == "step" else repr(float(value)) for key, value in row.items()])
            self.file.flush()
        except OSError as error:
            raise TrainerError(f"Cannot write {self.path}: {error.strerror}. Make room, then resume=auto.") from None

    def close(self) -> None:
        if self.file is not None:
            with contextlib.suppress(OSError):  # what could not be written has been reported
                self.file.close()
            self.file = None


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics file; a last row that a crash cut short is left out."""
    with open(path, newline="") as file:
        lines = list(csv.reader(file))
    names, rows = lines[0] if lines else [], []
    for line in lines[1:]:
        if len(line) == len(names):
            rows.append({name: float(value) for name, value in zip(names, line, strict=True)})
    return rows
