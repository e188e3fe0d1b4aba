"""The pictures of class folders, found as torchvision's ImageFolder does: everywhere below FOLDER/CLASS/."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from ..errors import TrainerError

SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".gif", ".webp", ".avif", ".heic", ".bmp", ".tga"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
}
NO_PICTURE, NOT_OPENED = "no pictures", "pictures that PIL can't open here"
MOST_SUFFIXES = 8  # of one reason: numbered files have as many suffixes as there are files
HIDDEN, LOOSE, LOOP = "hidden", "beside the class folders", "folders that hold themselves"


def suffixes() -> set[str]:
    """Of the files that count as pictures: the usual ones that PIL can open here."""
    openable = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    return SUFFIXES & openable


class LeftOut:
    """The files that are not used, counted by the reason and their suffix."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()

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


def list_classes(folder: Path, wanted: set[str] | None, left_out: LeftOut) -> dict[str, list[str]]:
    """The pictures of each class, in the order of their names, as paths below `folder`."""
    try:
        names = _class_names(folder, left_out)
        if wanted is not None:
            if missing := sorted(wanted - set(names)):
                raise TrainerError(f"{folder} lacks classes that data.classes lists: {', '.join(missing[:5])}.")
            names = [name for name in names if name in wanted]
        accepted = suffixes()
        files = {name: list(_pictures(str(folder), name, accepted, left_out, frozenset())) for name in names}
    except OSError as error:
        raise TrainerError(
            f"Cannot read {error.filename or folder}: {error.strerror}. data.root needs train/CLASS/ and test/CLASS/ "
            "(or val/CLASS/)."
        ) from None
    if not files:
        raise TrainerError(f"{folder} has no class folders: pictures belong in {folder}/CLASS/.")
    if empty := [name for name, found in files.items() if not found]:
        raise TrainerError(f"{folder / empty[0]} holds no pictures ({', '.join(sorted(accepted))}).")
    return files


def _class_names(folder: Path, left_out: LeftOut) -> list[str]:
    names = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            left_out.add(HIDDEN, entry.name)
        elif entry.is_dir():
            names.append(entry.name)
        else:
            left_out.add(LOOSE, entry.name)
    return names


def _pictures(
    root: str, below: str, accepted: set[str], left_out: LeftOut, above: frozenset[tuple[int, int]]
) -> Iterator[str]:
    """Those of a folder, then those of the folders in it. Links are followed, but never into a folder `above`."""
    here = os.stat(os.path.join(root, below))
    if (identity := (here.st_dev, here.st_ino)) in above:
        left_out.add(LOOP, "")
        return
    folders = []
    for entry in sorted(os.scandir(os.path.join(root, below)), key=lambda entry: entry.name):
        suffix = os.path.splitext(entry.name)[1].lower()
        if entry.name.startswith("."):
            left_out.add(HIDDEN, entry.name)
        elif entry.is_dir():
            folders.append(entry.name)
        elif suffix in accepted:
            yield f"{below}/{entry.name}"
        else:
            left_out.add(NOT_OPENED if suffix in SUFFIXES else NO_PICTURE, entry.name)
    for name in folders:
        yield from _pictures(root, f"{below}/{name}", accepted, left_out, above | {identity})
