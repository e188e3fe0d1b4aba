"""The one error that the trainer raises for what its user can put right."""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class TrainerError(SystemExit):
    """Says which thing is wrong and what to do; uncaught, it ends the program with that message and no traceback."""


class Unavailable(TrainerError):
    """What a run takes from outside is not to be had now: a file that is gone, a server that can't be reached."""


@contextmanager
def writing(path: Path, then: str = "resume=auto") -> Iterator[Path]:
    """Turns a result that can't be written into such an error."""
    try:
        yield path
    except OSError as error:
        raise TrainerError(
            f"Cannot write {path}: {error.strerror or error}. Make room (or the folder writable), then {then}."
        ) from None


def did_you_mean(word: str, valid: Sequence[str]) -> str:
    """The nearest valid word, as a sentence to append; empty where none is near."""
    close = difflib.get_close_matches(word, valid, n=1, cutoff=0.5)
    return f" Did you mean {close[0]}?" if close else ""


def no_choice(group: str, name: str, valid: Sequence[str]) -> str:
    """That a group of options has no such one."""
    return f"There is no {group}={name}.{did_you_mean(name, valid)} Valid: {', '.join(valid)}."


def first_sentence(text: str) -> str:
    """Without its period. The periods of option names, files and numbers end no sentence."""
    return text.partition(". ")[0].removesuffix(".")


def printable(text: str) -> str:
    """In one line that every terminal and file takes. Names of files may hold newlines, and bytes that are no text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
