"""Files that are written at once or not at all."""

import os
import secrets
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Writes a file at once or not at all: what was there stays until everything new is.

    Of processes that write the same file at the same time, the last one's stays.
    """
    partial = path.with_suffix(f".{secrets.token_hex(4)}.partial")  # of this process alone
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except BaseException:  # an interrupt, and text that can't be encoded, leave nothing behind either
        partial.unlink(missing_ok=True)
        raise
