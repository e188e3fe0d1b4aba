"""What callbacks take: the part of a model by its dotted path, and the options of the penalty that they make later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..penalty.weight_sites import WRAPPED

# What only the model itself can show to be right.
_OF_THE_MODEL = frozenset(
    ("include", "exclude", "extra", "batch_dims", "split_qkv", "split_gate_up", "split_heads", "share", "generator")
)


def submodule(model: nn.Module, path: str | None) -> nn.Module:
    """The module at a dotted path, which need not name what `torch.compile` and others wrap; the model itself for None.

    Raises:
        ValueError: naming the first step that leads nowhere, and those that there are.
    """
    steps = [] if path is None else path.split(".")
    for depth, step in enumerate(steps):
        parts = _parts(model)
        while step not in parts and (wrapped := sorted(WRAPPED & parts.keys())):
            parts = _parts(parts[wrapped[0]])
        if step not in parts:
            holder = ".".join(steps[:depth]) or f"the {type(model).__name__}"
            there = f"has {', '.join(parts)}" if parts else "has no modules"
            raise ValueError(f"module={path!r}: {holder} has no {step!r}; it {there}")
        model = parts[step]
    return model


def _parts(model: nn.Module) -> dict[str, nn.Module]:
    return {name: child for name, child in model._modules.items() if child is not None}


def check_path(module: object) -> None:
    if not isinstance(module, str | None):
        raise TypeError(
            f"module must be the dotted path of a submodule, or None for all; got a {type(module).__name__}"
        )


class _Trial(nn.Module):
    """The least model that either penalty covers. It draws no random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.lora_A = nn.Parameter(torch.zeros(1, 1, device="cpu"))
        self.lora_B = nn.Parameter(torch.zeros(1, 1, device="cpu"))


def check_options(make: Callable[..., object], kind: str, options: Mapping[str, Any]) -> None:
    """Raises what `make`, the penalty's class, would, as far as no model is needed: training may begin much later."""
    tried = {name: value for name, value in options.items() if name not in _OF_THE_MODEL}
    if isinstance(tried.get("gamma"), Mapping | Tensor):  # patterns of names; a device
        tried["gamma"] = 1.0
    make(_Trial(), kind, **{"lora": "factors"} | tried)
