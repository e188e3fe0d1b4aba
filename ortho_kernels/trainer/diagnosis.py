"""Where a loss or gradient that is not finite came from, said in one sentence."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def first_non_finite_weight(module: nn.Module) -> str | None:
    """The name of the first parameter that holds NaN or Inf, in the order of the forward pass."""
    return next((name for name, value in module.named_parameters() if not value.isfinite().all()), None)


def first_non_finite_gradient(module: nn.Module) -> str | None:
    """The name of the parameter nearest to the loss whose gradient holds NaN or Inf: there backward went wrong first."""
    bad = [name for name, p in module.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    return bad[-1] if bad else None


def gradients_are_finite(module: nn.Module) -> bool:
    """One pass over all gradients and one synchronization."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    return bool(torch.nn.utils.get_total_norm(gradients).isfinite()) if gradients else True


def first_non_finite_layer(module: nn.Module, forward: Callable[[], Any]) -> str | None:
    """The first layer whose output holds NaN or Inf when `forward` is run once more."""
    found: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, inputs: Any, output: Any) -> None:
            if not found and isinstance(output, Tensor) and not output.isfinite().all():
                found.append(name)

        return hook

    handles = [
        layer.register_forward_hook(watch(name)) for name, layer in module.named_modules() if not list(layer.children())
    ]
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
