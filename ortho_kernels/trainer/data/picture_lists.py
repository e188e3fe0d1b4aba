"""Lists of pictures: a text file that names one picture a line."""

import os
from pathlib import Path

from ..errors import TrainerError, printable
from .encoded import results_of
from .left_out import MISSING, TWICE, LeftOut
from .picture_sources import PictureFiles

SHOWN = 3  # of the paths that are missing


def read_list(path: Path, skip_missing: bool, left_out: LeftOut) -> PictureFiles:
    """The pictures of a list, in its order.

    Each line is a path, absolute or relative to the list's folder. The text is UTF-8, with a byte order mark or
    without, and lines end as on any system. Blank lines and those that begin with # are comments; spaces around a path
    do not count. A path that comes again is left out.

    Raises TrainerError for a file that is no such list, for one without a path and, unless they are skipped, for paths
    where no file is.
    """
    paths = []
    seen: set[bytes] = set()
    for line in _lines(path):
        place = os.path.join(os.fsencode(path.parent), line)
        # However it is written. Links are not looked up: that would take long for a million files.
        if (whole := os.path.abspath(place)) in seen:
            left_out.add(TWICE, os.fsdecode(line))
            continue
        seen.add(whole)
        paths.append(place)
    if not paths:
        raise TrainerError(f"data.root={path} lists no pictures: it needs one path a line.")
    found = list(results_of("Looking up", lambda index: os.path.isfile(paths[index]), len(paths)))
    missing = [place for place, is_there in zip(paths, found, strict=True) if not is_there]
    if len(missing) == len(paths) or (missing and not skip_missing):
        names = ", ".join(printable(os.fsdecode(place)) for place in missing[:SHOWN])
        raise TrainerError(
            f"{len(missing):,} of the {len(paths):,} files that data.root={path} lists are missing: {names}"
            f"{', ...' if len(missing) > SHOWN else ''}. Paths are relative to the list's folder; a line holds nothing "
            "else. Mend the list, or leave out what is missing: data.corrupt=skip."
        )
    for place in missing:
        left_out.add(MISSING, os.fsdecode(place))
    return PictureFiles.of(b"", [place for place, is_there in zip(paths, found, strict=True) if is_there])


def _lines(path: Path) -> list[bytes]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TrainerError(f"Cannot read data.root={path}: {error.strerror}.") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise TrainerError(
            f"data.root={path} is no list of pictures. A list is a text in UTF-8 with one path a line; else data.root "
            "is a folder, or shards that end in .tar."
        )
    lines = (line.strip() for line in text.replace("\r", "\n").split("\n"))
    return [os.fsencode(line) for line in lines if line and not line.startswith("#")]
