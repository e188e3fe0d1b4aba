"""How names of weights and reasons are shown to people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def shown(given: Any, most: int = 60) -> str:
    """What was given, in one short line."""
    line = " ".join(repr(given).split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


def abridged(names: Sequence[str], most: int = 6) -> str:
    """The first names and the last."""
    if len(names) <= most:
        return ", ".join(names)
    return ", ".join([*names[: most - 1], "...", names[-1]])


def described(uncovered: dict[str, str]) -> str:
    """The names and their reasons, those with one reason together."""
    names: dict[str, list[str]] = {}
    for name, reason in uncovered.items():
        names.setdefault(reason, []).append(name)
    return "; ".join(f"{abridged(group, 3)}: {reason}" for reason, group in names.items())
