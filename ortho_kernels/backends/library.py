"""A compiled library of operators: loaded once, when the package is imported, or the reason why it can't be."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import torch

PACKAGE = Path(__file__).resolve().parent.parent


class Library:
    """`needs` builds it, `switches` are environment variables against it, `check` raises where the file is another."""

    def __init__(
        self, path: Path, build_log: str, needs: str, switches: tuple[str, ...], check: Callable[[], object]
    ) -> None:
        self.path, self.needs, self.switches, self.check = path, needs, switches, check
        self.build_log = PACKAGE / build_log

    @cached_property
    def reason_against(self) -> str | None:
        """Registers the operators; None if they are there, else the reason why they aren't."""
        for variable in self.switches:
            if os.environ.get(variable, "0") not in ("", "0"):
                return f"{variable} is set"
        if not self.path.exists():
            return f"not built: {self._why_not_built()}"
        try:
            self.check()
            torch.ops.load_library(str(self.path))
        except Exception as error:
            return f"failed to load: {error.__cause__ or error}"  # the linker's own words, where torch wraps them
        return None

    def _why_not_built(self) -> str:
        if self.build_log.exists():
            return self.build_log.read_text().partition("\n")[0]
        return f"{self.path.name} is missing; `pip install -e . --no-build-isolation` builds it with {self.needs}"
