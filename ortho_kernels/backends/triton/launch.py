"""Launches of kernels; or, where kernels are compiled ahead of time, the calls that they would make."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from .rows import Table


class KernelCall(NamedTuple):
    """A kernel of triton.jit, its arguments, and what it is compiled for: meta-parameters and options of the compiler."""

    kernel: Any
    programs: int
    arguments: tuple
    keywords: dict[str, Any]

    @property
    def name(self) -> str:
        return self.kernel.fn.__name__

    @property
    def identity(self) -> str:
        """The same for calls that one compilation serves: the keywords name the types of arguments that differ."""
        return f"{self.name}, {self.keywords}"

    def run(self) -> Any:
        """Launches, and returns the compiled kernel; None from triton's interpreter."""
        return self.kernel[(self.programs,)](*self.arguments, **self.keywords)

    def compile(self) -> Any:
        """The compiled kernel, for the target of triton's driver. What triton's cache holds is not compiled again."""
        return self.kernel.warmup(*self.arguments, grid=(self.programs,), **self.keywords)


class Launch:
    """One launch for all matrices of a dtype: a program for each item.

    By its first launch triton finds out what to compile for the arguments, their types and alignment. Every later one goes
    to the compiled kernel itself, unchecked: the question takes triton longer than the launch. So arguments of other types
    need a `Launch` of their own, with other keywords.
    """

    def __init__(self, storage: torch.dtype, programs: int, items: Table, keywords: dict[str, Any]):
        self.storage, self.programs, self.items, self.keywords = storage, programs, items, keywords
        self._constants = (keywords["META"],) if "META" in keywords else ()
        self._compiled: dict[Any, Any] = {}

    def run(self, kernel: Any, *arguments: Any, programs: int | None = None) -> None:
        programs = programs or self.programs
        if _collected is not None:
            _collected.append(KernelCall(kernel, programs, arguments, self.keywords))
        elif (compiled := self._compiled.get(kernel.fn)) is not None:
            compiled[programs, 1, 1](*arguments, *self._constants)
        else:
            self._compiled[kernel.fn] = KernelCall(kernel, programs, arguments, self.keywords).run()


_collected: list[KernelCall] | None = None


@contextmanager
def collected() -> Iterator[list[KernelCall]]:
    """Within the block calls are collected, and nothing runs."""
    global _collected
    before, _collected = _collected, []
    try:
        yield _collected
    finally:
        _collected = before
