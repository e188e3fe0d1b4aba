"""What the commands of this folder accept. argparse prints what is refused, and why, and exits with status 2."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path

PENALTIES = ("so", "srip")
DTYPES = ("float32", "bfloat16", "float16")


def seconds(text: str) -> float:
    """More than 0; `inf` is no limit."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not number > 0:
        raise ArgumentTypeError(f"expected a number of seconds above 0, got {text!r}")
    return number


def output_file(text: str) -> Path:
    """A file that can be added to, seen before hours go into what it is for. Its folder is made, the file is not."""
    path = Path(text)
    is_new = not path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
        if is_new:
            path.unlink()
    except OSError as error:
        raise ArgumentTypeError(f"{text!r} can't be written: {error.strerror}; give another place") from None
    return path


def output_folder(text: str) -> Path:
    """A folder that can be written to; it is made where it is missing."""
    if not text:
        raise ArgumentTypeError("expected a folder, got an empty name")
    return output_file(str(Path(text, "running.jsonl"))).parent


def input_file(text: str) -> Path:
    """A file that is there, by its whole path: stages run elsewhere."""
    if not Path(text).is_file():
        raise ArgumentTypeError(f"expected a file, got {text!r}, which is none")
    return Path(text).resolve()


def input_folder(text: str) -> Path:
    """A folder that is there, by its whole path: stages run elsewhere."""
    if not Path(text).is_dir():
        raise ArgumentTypeError(f"expected a folder, got {text!r}, which is none")
    return Path(text).resolve()
