"""The part of a model that is penalized, by its dotted path."""

from __future__ import annotations

from torch import nn


def submodule(model: nn.Module, path: str | None) -> nn.Module:
    """The module at a dotted path; the model itself for None.

    Raises:
        ValueError: naming the first step that leads nowhere, and those that there are.
    """
    steps = [] if path is None else path.split(".")
    for depth, step in enumerate(steps):
        parts = {name: child for name, child in model._modules.items() if child is not None}
        if step not in parts:
            holder = ".".join(steps[:depth]) or f"the {type(model).__name__}"
            there = f"has {', '.join(parts)}" if parts else "has no modules"
            raise ValueError(f"module={path!r}: {holder} has no {step!r}; it {there}")
        model = parts[step]
    return model


def check_path(module: object) -> None:
    if not isinstance(module, str | None):
        raise TypeError(
            f"module must be the dotted path of a submodule, or None for all; got a {type(module).__name__}"
        )
