"""The pictures below a folder, at any depth; those of class folders as torchvision's ImageFolder finds them."""

import os
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from ..errors import TrainerError
from .left_out import HIDDEN, LOOP, LOOSE, NO_FILE, NO_PICTURE, NOT_OPENED, LeftOut

SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".gif", ".webp", ".avif", ".heic", ".bmp", ".tga"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
}


def suffixes() -> set[str]:
    """Of the files that count as pictures: the usual ones that PIL can open here."""
    openable = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    return SUFFIXES & openable


def has_class_folders(folder: Path) -> bool:
    """Whether folders are in it. Where there are none, the pictures in it have no classes."""
    if not os.path.isdir(folder):
        return False
    try:
        return any(_is_folder(entry) and not entry.name.startswith(".") for entry in os.scandir(folder))
    except OSError as error:
        raise TrainerError(f"Cannot read {folder}: {error.strerror}.") from None


def list_classes(folder: Path, wanted: set[str] | None, left_out: LeftOut) -> dict[str, list[str]]:
    """The pictures of each class, in the order of their names, as paths below `folder`."""
    try:
        names = _class_names(folder, left_out)
        if wanted is not None:
            if missing := sorted(wanted - set(names)):
                raise TrainerError(f"{folder} lacks classes that data.classes lists: {', '.join(missing[:5])}.")
            names = [name for name in names if name in wanted]
        accepted = suffixes()
        files = {name: list(_pictures(str(folder), f"{name}/", accepted, left_out, frozenset())) for name in names}
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
        elif _is_folder(entry):
            names.append(entry.name)
        else:
            left_out.add(LOOSE, entry.name)
    return names


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Or a link to one. Of a link that leads to itself, DirEntry.is_dir raises an error."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _is_special(entry: os.DirEntry[str]) -> bool:
    """A pipe, a socket or a device. A link that leads nowhere is none: it is a broken picture."""
    if entry.is_symlink():
        return os.path.exists(entry.path) and not os.path.isfile(entry.path)
    return not entry.is_file()


def list_pictures(folder: Path, left_out: LeftOut) -> list[str]:
    """All pictures below `folder`, as paths below it, in the order of their names."""
    try:
        return list(_pictures(str(folder), "", suffixes(), left_out, frozenset()))
    except OSError as error:
        raise TrainerError(f"Cannot read {error.filename or folder}: {error.strerror}.") from None


def reason_against(name: str, accepted: set[str]) -> str | None:
    """Why the file of this name is not used as a picture; None if it is."""
    suffix = os.path.splitext(name)[1].lower()
    if name.startswith("."):
        return HIDDEN
    if suffix in accepted:
        return None
    return NOT_OPENED if suffix in SUFFIXES else NO_PICTURE


def _pictures(
    root: str, below: str, accepted: set[str], left_out: LeftOut, above: frozenset[tuple[int, int]]
) -> Iterator[str]:
    """Those of the folder `below`, which ends in a slash or is empty, then those of the folders in it. Links are
    followed, but never into a folder `above`."""
    here = os.stat(os.path.join(root, below))
    if (identity := (here.st_dev, here.st_ino)) in above:
        left_out.add(LOOP, "")
        return
    folders = []
    for entry in sorted(os.scandir(os.path.join(root, below)), key=lambda entry: entry.name):
        if _is_folder(entry) and not entry.name.startswith("."):
            folders.append(entry.name)
        elif reason := reason_against(entry.name, accepted):
            left_out.add(reason, entry.name)
        elif _is_special(entry):
            left_out.add(NO_FILE, entry.name)
        else:
            yield f"{below}{entry.name}"
    for name in folders:
        yield from _pictures(root, f"{below}{name}/", accepted, left_out, above | {identity})
