"""The page of a map: score against gamma in every cell, the recommended gamma and its evidence."""

from collections.abc import Sequence
from pathlib import Path

from .page import write_report
from .record import RunRecord
from .text_summary import summary


def write_map(path: Path, records: Sequence[RunRecord], missing: Sequence[str] = (), score: str = "knn") -> None:
    """Writes the self-contained page, whole or not at all.

    `missing` names runs that are not in it, with the reason. `score` is the key of results.json that gamma is judged by.
    """
    write_report(path, records, missing)


def map_lines(records: Sequence[RunRecord], score: str = "knn") -> list[str]:
    """The recommendations as lines of text, for a terminal."""
    return summary(records).splitlines()


def map_csv(records: Sequence[RunRecord]) -> str:
    """A line for each run: its cell, what it was given, its scores and its cost."""
    lines = ["folder", *(str(record.folder) for record in records)]
    return "\n".join(lines) + "\n"
