"""LARS (You, Gitman, Ginsburg 2017): SGD whose every layer has a rate in proportion to its weights over its gradients."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class LARS(Optimizer):
    """SGD with momentum that scales a layer's gradient, weight decay included.

    The factor is `trust * |w| / (|g| + weight_decay * |w|)`; with `clip` it is divided by the rate and at most 1 (LARC).

    Groups with `decays=False` (norms and biases) are left to plain SGD. Nothing waits for the device.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        clip: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust": trust,
            "clip": clip,
            "decays": True,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                self._step(group, weights, [weight.grad for weight in weights])
        return loss

    def _step(self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor]) -> None:
        updates = list(torch._foreach_add(gradients, weights, alpha=group["weight_decay"]))
        if group["decays"]:
            torch._foreach_mul_(updates, self._rates(group, weights, gradients))
        for weight in weights:
            if "momentum_buffer" not in self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        buffers = [self.state[weight]["momentum_buffer"] for weight in weights]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, updates)
        torch._foreach_add_(weights, buffers, alpha=-group["lr"])

    def _rates(self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        rates = []
        for weight, gradient in zip(torch._foreach_norm(weights), torch._foreach_norm(gradients), strict=True):
            rate = group["trust"] * weight / (gradient + group["weight_decay"] * weight + 1e-8)
            if group["clip"]:
                rate = (rate / max(group["lr"], 1e-12)).clamp(max=1.0)
            # A weight that is zero, or has no gradient, would never move.
            rates.append(torch.where((weight > 0) & (gradient > 0), rate, 1.0))
        return rates
