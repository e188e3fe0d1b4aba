"""Data that torchvision downloads, with its checksums, into the user's cache: quietly, and with an answer offline."""

import contextlib
import io
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from ..errors import TrainerError

Dataset = TypeVar("Dataset")
TIMEOUT_SECONDS = 20.0


def default_root() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ortho_kernels"


def data_root(root: str | None) -> Path:
    return Path(root).expanduser() if root else default_root()


def fetch(title: str, root: Path, open_dataset: Callable[..., Dataset]) -> Dataset:
    """`open_dataset(download=...)`: what lies in `root`, downloaded first if it isn't there or isn't whole."""
    with contextlib.suppress(RuntimeError, OSError):  # torchvision's "not found or corrupted"
        return open_dataset(download=False)
    print(f"{title} is not in {root}: fetching it ...", flush=True)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainerError(
            f"Cannot create {root}: {error.strerror}. Give a writable folder: data.root=FOLDER."
        ) from None
    try:
        with quiet_download():
            return open_dataset(download=True)
    except (RuntimeError, OSError) as error:
        raise TrainerError(
            f"{title} could not be fetched ({last_line(error)}). Without a network, put its files as torchvision "
            f"downloads them into {root}, give another folder (data.root=FOLDER), or take data=digits."
        ) from None


@contextlib.contextmanager
def quiet_download() -> Iterator[None]:
    """torchvision prints its progress and every failed mirror; ours is one line, and the reason if all fails."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)


def last_line(error: Exception) -> str:
    text = getattr(error, "stderr", None) or getattr(error, "reason", None) or error
    lines = str(text).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
