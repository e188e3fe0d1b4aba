"""Files of JSON lines: an object a line, added as soon as it is known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path


def append(path: Path, entry: dict) -> None:
    """Adds one line, which is written when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(entry) + "\n")


def show(entry: dict, path: Path | None) -> None:
    """Prints one line, and adds it to the file if there is one."""
    print(json.dumps(entry), flush=True)
    if path is not None:
        append(path, entry)


def read(path: Path) -> Iterator[dict]:
    """The objects of a file, which may be missing. A line that was cut short is left out."""
    if not path.exists():
        return
    for line in path.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict):
            yield entry
