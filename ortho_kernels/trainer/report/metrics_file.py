"""metrics.csv and evaluations.csv: appended to while a run lasts, cut back to the checkpoint when it resumes."""

import contextlib
import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

from ..errors import TrainerError, writing
from .atomic_writing import write_atomically

Row = dict[str, float]


class MetricsFile:
    """Holds every column that any row has: where another version of the run resumes, rows may have others than before.
    A row without a column has NaN there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: TextIO | None = None
        self.names: list[str] = []

    def open(self, step: int) -> list[Row]:
        """Keeps the rows up to `step`, and returns them: those after it belong to work that is about to be done again."""
        with writing(self.path):
            rows = read_metrics(self.path) if self.path.exists() else []
        rows = [row for row in rows if row["step"] <= step]
        self._replace(rows, list(rows[0]) if rows else [])
        return rows

    def write(self, row: Row) -> None:
        assert self.file is not None
        if new := [name for name in row if name not in self.names]:
            self._replace(read_metrics(self.path), [*self.names, *new])
        try:
            self.file.write(_as_csv([_cells(row, self.names)]))
            self.file.flush()
        except OSError as error:
            raise TrainerError(f"Cannot write {self.path}: {error.strerror}. Make room, then resume=auto.") from None

    def close(self) -> None:
        if self.file is not None:
            with contextlib.suppress(OSError):  # what could not be written has been reported
                self.file.close()
            self.file = None

    def _replace(self, rows: Sequence[Row], names: list[str]) -> None:
        """At once, so that a crash here loses no row."""
        self.close()
        self.names = names
        header = [names] if names else []
        with writing(self.path):
            write_atomically(self.path, _as_csv([*header, *(_cells(row, names) for row in rows)]))
            self.file = open(self.path, "a", newline="")  # noqa: SIM115 (lives as long as the run)


def read_metrics(path: Path) -> list[Row]:
    """The rows of a metrics file; a last row that a crash cut short is left out.

    Raises TrainerError for another line that is no row.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = text[: text.rfind("\n") + 1].splitlines()
    names = next(csv.reader(lines), [])
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split(",")
        try:
            rows.append({name: float(cell or "nan") for name, cell in zip(names, cells, strict=True)})
        except ValueError:
            raise TrainerError(
                f"{path}: line {number} is no row of {len(names)} numbers: {line[:80]!r}. Remove that line; "
                "a run that is not finished then goes on by resume=auto."
            ) from None
    return rows


def _cells(row: Row, names: Iterable[str]) -> list[str]:
    return [str(int(row[name])) if name == "step" else repr(float(row.get(name, math.nan))) for name in names]


def _as_csv(lines: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
