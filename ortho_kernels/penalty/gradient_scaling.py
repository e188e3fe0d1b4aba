"""The factor by which gradients are scaled while a `torch.amp.GradScaler` is at work."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler, OptState


def scale_factor(scaler: GradScaler | None, device: torch.device) -> float | Tensor:
    """The scale of the gradients that a scaler has not yet unscaled, on the device; 1 without a scaler at work.

    Raises:
        TypeError: for anything else than a GradScaler.
        RuntimeError: where the scaler has unscaled gradients in this step.
    """
    if scaler is None:
        return 1.0
    if not isinstance(scaler, GradScaler):
        raise TypeError(f"scaler must be a torch.amp.GradScaler; got a {type(scaler).__name__}")
    if not scaler.is_enabled():
        return 1.0
    if any(state["stage"] is OptState.UNSCALED for state in scaler._per_optimizer_states.values()):
        raise RuntimeError(
            "the scaler has unscaled the gradients already: call accumulate_gradients(scaler=scaler) before "
            "scaler.unscale_(optimizer), or accumulate_gradients() without a scaler after it"
        )
    return scaler.scale(torch.ones((), dtype=torch.float64, device=device))
