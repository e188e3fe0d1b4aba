"""Where a loss that is not finite came from."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def first_non_finite_weight(module: nn.Module) -> str | None:
    """The name of the first parameter that holds NaN or Inf, in the order of the forward pass. Of sharded weights this
    process's parts are looked at: others may not be asking."""
    return next((name for name, value in module.named_parameters() if not _own_part(value).isfinite().all()), None)


def first_non_finite_layer(module: nn.Module, forward: Callable[[], Any]) -> str | None:
    """The first layer whose output holds NaN or Inf when `forward` is run once more, not compiled: compiled code does not
    call hooks that come after it."""
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
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def _own_part(value: Tensor) -> Tensor:
    return value.to_local() if isinstance(value, DTensor) else value
