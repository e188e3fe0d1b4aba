"""What a `torch.amp.GradScaler` at work says: by which factor gradients are scaled, and whether a step was skipped."""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler, OptState


def scale_factor(scaler: GradScaler | None, device: torch.device) -> float | Tensor:
    """The scale of the gradients that a scaler has not yet unscaled, on the device; 1 without a scaler at work.

    Raises:
        TypeError: for anything else than a GradScaler.
        RuntimeError: where the scaler has unscaled gradients in this step.
    """
    if not _is_at_work(scaler):
        return 1.0
    if has_unscaled(scaler):
        raise RuntimeError(
            "the scaler has unscaled the gradients already: call accumulate_gradients(scaler=scaler) before "
            "scaler.unscale_(optimizer), or accumulate_gradients() without a scaler after it"
        )
    return scaler.scale(torch.ones((), dtype=torch.float64, device=device))


def has_unscaled(scaler: GradScaler) -> bool:
    """Whether the scaler has unscaled the gradients of an optimizer that has not stepped since."""
    return any(state["stage"] is OptState.UNSCALED for state in scaler._per_optimizer_states.values())


def skipped_step(scaler: GradScaler | None, optimizer: torch.optim.Optimizer) -> Tensor | None:
    """Whether the scaler let the optimizer skip its step, as a bool tensor on the device; None without a scaler at work.

    Raises:
        TypeError: for anything else than a GradScaler.
        RuntimeError: where this optimizer has not stepped since the scaler's last update.
    """
    if not _is_at_work(scaler):
        return None
    state = scaler._per_optimizer_states.get(id(optimizer))
    if state is None or state["stage"] is not OptState.STEPPED:
        raise RuntimeError(
            "the scaler no longer knows, or does not know yet, whether the optimizer stepped: call "
            "step_(optimizer, scaler=scaler) between scaler.step(optimizer) and scaler.update()"
        )
    first, *others = state["found_inf_per_device"].values()
    return sum((other.to(first.device, non_blocking=True) for other in others), first) != 0


def _is_at_work(scaler: object) -> TypeGuard[GradScaler]:
    if scaler is None:
        return False
    if not isinstance(scaler, GradScaler):
        raise TypeError(f"scaler must be a torch.amp.GradScaler; got a {type(scaler).__name__}")
    return scaler.is_enabled()
