"""Which tar files a pattern means: `x-{000..031}.tar`, `x-{a,b}.tar`, `x-*.tar`, `a.tar,b.tar`, or one file."""

import glob
import os
import re
from pathlib import Path

from ..errors import TrainerError

RANGE = re.compile(r"(\d+)\.\.(\d+)")
SHOWN = 3  # of the shards that are missing
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.lz4")


def names_shards(root: str) -> bool:
    """Whether `data.root` means shards, and not a folder or a list."""
    return root.lower().endswith((".tar", *COMPRESSED)) or "{" in Path(root).name


def find_shards(root: str) -> list[Path]:
    """The files that the pattern means, in its order, each once.

    Raises TrainerError for compressed shards, for files that are missing, and for a pattern that means none.
    """
    paths: list[Path] = []
    for name in [root] if _is_there(root) else _expand(root):
        place = str(Path(name).expanduser())
        found = [place] if _is_there(name) or not glob.has_magic(place) else sorted(glob.glob(place))
        if not found:
            raise TrainerError(f"data.root={root}: no file is named so ({place}).")
        paths += map(Path, found)
    paths = list(dict.fromkeys(paths))
    if compressed := [path for path in paths if path.name.lower().endswith(COMPRESSED)]:
        raise compressed_error(compressed[0])
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise TrainerError(
            f"{len(missing):,} of the {len(paths):,} shards that data.root={root} names are missing: "
            f"{', '.join(missing[:SHOWN])}{', ...' if len(missing) > SHOWN else ''}. Bring them here, or name the others."
        )
    return paths


def _is_there(name: str) -> bool:
    """Such a name is meant as it stands, whatever braces, commas or stars are in it."""
    return os.path.isfile(os.path.expanduser(name))


def compressed_error(path: Path) -> TrainerError:
    return TrainerError(
        f"{path} is compressed, so no picture in it can be read without all before it, and pictures are read in random "
        "order. Unpack it to a plain .tar (gunzip, unxz, zstd -d): pictures are compressed already."
    )


def _expand(pattern: str) -> list[str]:
    """As a shell expands braces, numbers filled up with zeros; commas outside of braces separate patterns."""
    depth, start, parts = 0, 0, []
    for place, character in enumerate(pattern + ","):
        depth += (character == "{") - (character == "}")
        if character == "," and depth == 0:
            parts.append(pattern[start:place])
            start = place + 1
    if depth:
        raise TrainerError(f"data.root={pattern}: a brace is not closed. A pattern is x-{{000..031}}.tar, for example.")
    return [name for part in parts if part for name in _expand_braces(part)]


def _expand_braces(pattern: str) -> list[str]:
    found = re.search(r"\{([^{}]*)\}", pattern)  # an innermost one
    if found is None:
        return [pattern]
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [name for choice in _choices(found[1], pattern) for name in _expand_braces(before + choice + after)]


def _choices(inside: str, pattern: str) -> list[str]:
    if bounds := RANGE.fullmatch(inside):
        first, last = bounds.groups()
        padded = any(len(bound) > 1 and bound[0] == "0" for bound in (first, last))
        width = max(len(first), len(last)) if padded else 0
        step = 1 if int(first) <= int(last) else -1
        return [f"{number:0{width}}" for number in range(int(first), int(last) + step, step)]
    if "," in inside:
        return inside.split(",")
    raise TrainerError(
        f"data.root={pattern}: {{{inside}}} is neither a range such as {{000..031}} nor a choice such as {{a,b}}."
    )
