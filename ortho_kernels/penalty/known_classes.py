"""Classes of other libraries by name, which need not be imported to be recognized; a subclass counts as its base does."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn


def class_names(module: nn.Module) -> Iterator[str]:
    """`LIBRARY.FILE.CLASS` of a module's class and of its bases, the nearest first: `"timm.attention.Attention"`."""
    for kind in type(module).__mro__:
        library, file = kind.__module__.partition(".")[0], kind.__module__.rpartition(".")[2]
        yield f"{library}.{file.removeprefix('modeling_')}.{kind.__name__}"
