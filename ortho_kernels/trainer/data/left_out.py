"""What a run does not use of the files that it was given, counted by the reason."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping

HIDDEN, LOOSE, LOOP = "hidden", "beside the class folders", "folders that hold themselves"
NO_PICTURE, NOT_OPENED = "no pictures", "pictures that PIL can't open here"
NO_FILE = "no regular files"  # pipes and devices, which may never end; links in a tar file
TWICE, MISSING, CUT_OFF, BROKEN = "listed twice", "missing", "cut off", "broken"
MOST_SUFFIXES = 8  # of one reason: numbered files have as many suffixes as there are files


class LeftOut:
    """The files that are not used, counted by the reason and their suffix."""

    def __init__(self, counts: Mapping[str, Mapping[str, int]] | None = None) -> None:
        """From the counts that `as_dict` gives; empty without them."""
        nested = counts or {}
        self.counts = Counter({(reason, suffix): n for reason, of in nested.items() for suffix, n in of.items()})

    def add(self, reason: str, name: str) -> None:
        self.counts[reason, os.path.splitext(name)[1].lower() or "without suffix"] += 1

    def __str__(self) -> str:
        """In one line; empty if nothing was left out."""
        if not self.counts:
            return ""
        reasons = sorted({reason for reason, _ in self.counts})
        total = self.counts.total()
        return f"{total:,} {'file was' if total == 1 else 'files were'} left out: {'; '.join(map(self._of, reasons))}."

    def _of(self, reason: str) -> str:
        found = sorted((-count, suffix) for (why, suffix), count in self.counts.items() if why == reason)
        parts = [f"{-count:,} {suffix}" for count, suffix in found[:MOST_SUFFIXES]]
        if others := -sum(count for count, _ in found[MOST_SUFFIXES:]):
            parts.append(f"{others:,} of other kinds")
        return f"{', '.join(parts)} ({reason})"

    def with_broken(self, names: Iterable[str]) -> "LeftOut":
        """These and the pictures that can't be decoded."""
        total = LeftOut(self.as_dict())
        for name in names:
            has_suffix = re.fullmatch(r"\.\w+", os.path.splitext(name)[1])  # names of rows have none
            total.add(BROKEN, name if has_suffix else "")
        return total

    def as_dict(self) -> dict[str, dict[str, int]]:
        """The counts as JSON holds them: {reason: {suffix: files}}."""
        nested: dict[str, dict[str, int]] = {}
        for (reason, suffix), count in sorted(self.counts.items()):
            nested.setdefault(reason, {})[suffix] = count
        return nested
