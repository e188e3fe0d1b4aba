"""Launches of kernels; or, where kernels are compiled ahead of time, the calls that they would make."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor


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
        """The same for calls that one compilation serves."""
        return f"{self.name}, {self.keywords}"

    def run(self) -> None:
        self.kernel[(self.programs,)](*self.arguments, **self.keywords)

    def compile(self) -> Any:
        """The compiled kernel, for the target of triton's driver. What triton's cache holds is not compiled again."""
        return self.kernel.warmup(*self.arguments, grid=(self.programs,), **self.keywords)


class Launch(NamedTuple):
    """One launch for all matrices of a dtype: a program for each item."""

    storage: torch.dtype
    programs: int
    items: Tensor
    keywords: dict[str, Any]

    def run(self, kernel: Any, *arguments: Any, programs: int | None = None) -> None:
        call = KernelCall(kernel, programs or self.programs, arguments, self.keywords)
        if _collected is None:
            call.run()
        else:
            _collected.append(call)


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
