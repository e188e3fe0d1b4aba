"""A CSV file of numbers that another process appends to, read as it grows."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class GrowingTable:
    """The columns of the file at the last look. A file that is not there yet is a table without columns.

    A look reads what was appended since the one before. A run that resumes cuts its file back: then the last row that
    was read stands no longer where it stood, and the whole file is read again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._forget()

    def _forget(self) -> None:
        self.names: list[str] = []
        self.rows = np.empty((0, 0))
        self.end = 0  # of the last whole line, in bytes
        self.last = b""  # that line

    def __len__(self) -> int:
        return len(self.rows)

    def look(self) -> None:
        try:
            with open(self.path, "rb") as file:
                file.seek(self.end - len(self.last))
                if not self.last or file.read(len(self.last)) != self.last:
                    self._forget()
                    file.seek(0)
                self._append(file.read())
        except FileNotFoundError:
            self._forget()

    def column(self, name: str) -> NDArray[np.float64]:
        """Empty where there is no such column."""
        return self.rows[:, self.names.index(name)] if name in self.names else np.empty(0)

    def _append(self, content: bytes) -> None:
        lines = content[: content.rfind(b"\n") + 1].splitlines(keepends=True)  # the writer is not done with the rest
        if not lines:
            return
        self.end += sum(map(len, lines))
        self.last = lines[-1]
        if not self.names:
            self.names = lines.pop(0).decode(errors="replace").strip().split(",")
            self.rows = np.empty((0, len(self.names)))
        if lines:
            self.rows = np.concatenate([self.rows, _numbers(lines, len(self.names))])


def _numbers(lines: list[bytes], columns: int) -> NDArray[np.float64]:
    """The rows among these lines. What a crash has cut short or spoiled is left out, and an empty cell is NaN."""
    try:
        rows = np.loadtxt(io.BytesIO(b"".join(lines)), delimiter=",", ndmin=2)
        if rows.shape[1] == columns:
            return rows
    except ValueError:
        pass  # at least one line is no row: take them one by one, which is slower
    found = []
    for line in lines:
        cells = line.strip().split(b",")
        try:
            if len(cells) == columns:
                found.append([float(cell or b"nan") for cell in cells])
        except ValueError:
            continue
    return np.array(found).reshape(-1, columns)
