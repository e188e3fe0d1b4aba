"""Debian packages as places that data comes from: fetched and unpacked, without root rights."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

FAILURES = (OSError, subprocess.SubprocessError)  # what `unpacked` raises where the package can't be had


@contextlib.contextmanager
def unpacked(package: str, beside: Path) -> Iterator[Path]:
    """A folder that holds the package's files, as `/` would. It lies in the folder `beside`, and is gone afterwards.

    Raises one of FAILURES, whose last line says why, on a machine without apt or without a way to its servers.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise OSError(f"{tool} is not here; this is no Debian or Ubuntu")
    with tempfile.TemporaryDirectory(dir=beside) as folder:
        _fetch(package, Path(folder))
        [archive] = Path(folder).glob("*.deb")
        _run(["dpkg-deb", "-x", archive.name, "unpacked"], folder)
        yield Path(folder, "unpacked")


def _fetch(package: str, folder: Path) -> None:
    """`apt-get download`, with the machine's package lists if it has them, else with fresh private ones (no root)."""
    with contextlib.suppress(subprocess.CalledProcessError):
        _run(["apt-get", "download", package], folder)
        return
    lists, cache = folder / "lists", folder / "cache"
    lists.mkdir()
    cache.mkdir()
    private = ["-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={cache}"]
    _run(["apt-get", *private, "update"], folder)
    _run(["apt-get", *private, "download", package], folder)


def _run(command: list[str], folder: str | Path) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=300)
