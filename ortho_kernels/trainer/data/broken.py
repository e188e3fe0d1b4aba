"""The pictures of a run that can't be decoded: each is named once and counted once."""

import sys
from collections.abc import Iterator
from pathlib import Path

from ..distributed.processes import is_main_process
from ..errors import writing
from .decoding import PictureError

MOST_LINES = 20  # printed; gathered pictures may be broken by the thousand


class BrokenPictures:
    """Their names. In a run's folder the list is a file, which all processes of the run append to, data workers too.
    So none names a picture again, nor does a resumed run."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.file: Path | None = None

    def persist(self, file: Path) -> None:
        """From now on the list is this file; what is known goes there, if it isn't there yet."""
        self.file = file
        if is_main_process():
            self._append(sorted(self.names - self._listed()))

    def add(self, name: str, error: PictureError) -> None:
        if name in self.names:
            return
        self.names.add(name)
        listed = self._listed()
        if self.file is None:
            known = not is_main_process()  # before the run has a folder, every process of it finds the same
        else:
            known = name in listed
            self._append([name] * (not known))
        if not known:
            _print(error, len(self.names | listed))

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.names | self._listed()))

    def __len__(self) -> int:
        return len(self.names | self._listed())

    def _listed(self) -> set[str]:
        if self.file is None or not self.file.exists():
            return set()
        return set(self.file.read_text("utf-8", "surrogateescape").splitlines())

    def _append(self, names: list[str]) -> None:
        if not names or self.file is None:
            return
        with writing(self.file) as path:
            path.parent.mkdir(parents=True, exist_ok=True)  # of a machine that does not share the run's folder
            with open(path, "a", encoding="utf-8", errors="surrogateescape") as file:
                file.write("".join(f"{name}\n" for name in names))


def _print(error: PictureError, count: int) -> None:
    """Of as many broken pictures as a screen holds the names, then that there are more."""
    if count <= MOST_LINES:
        print(f"{error} It is left out.", file=sys.stderr, flush=True)
    elif count == MOST_LINES + 1:
        print("More are broken; broken_pictures.txt in the run's folder names all.", file=sys.stderr, flush=True)
