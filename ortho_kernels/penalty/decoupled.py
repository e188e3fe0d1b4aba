"""A step down the penalty's gradient beside the optimizer's own, as AdamW's weight decay is (arXiv 1711.05101)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..distributed.sharded.weight import ShardedWeight, empty_gradient
from ..ops import new_gradients
from ..weight_checks import is_number
from ..weight_views import WeightViews
from .computed_weights import trained_sources
from .words import abridged


class DecoupledStep:
    """`W -= lr * gradient` of every weight that requires a gradient, at the learning rate of its parameter group.

    A weight that is computed passes its gradient on to its parameters, each at its own learning rate. Of a sharded one,
    each process steps with its part.

    Args:
        optimizer: what holds the parameter groups; nothing else of it is read, and nothing changes.
        names: the weights' names.
        places: the module and the attribute of each weight.
        parameters, matrices: the weights as the model holds them, and as the penalty takes them.

    Attributes:
        gradients: where the gradients are to be written, one a weight; None where none is wanted.

    Raises:
        TypeError: for something without parameter groups.
        ValueError: for a weight that no group holds, or a group without a learning rate.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        names: Sequence[str],
        places: Sequence[tuple[nn.Module, str]],
        parameters: Sequence[Tensor],
        matrices: Sequence[Tensor],
        views: WeightViews,
    ) -> None:
        self._rates = _learning_rates(optimizer)
        trained = [_trained(weight, *place) for weight, place in zip(parameters, places, strict=True)]
        missing = [
            name for name, own in zip(names, trained, strict=True) if any(id(part) not in self._rates for part in own)
        ]
        if missing:
            raise ValueError(
                f"no parameter group of the optimizer holds {abridged(missing)}: there is no learning rate for its step; "
                "add it to a group, freeze it, or `exclude` it from the penalty"
            )
        wanted = [bool(own) for own in trained]
        made = iter(_new_gradients(matrices, wanted, views))
        self.gradients = [next(made) if is_wanted else None for is_wanted in wanted]
        self._held: list[tuple[Tensor, Tensor, Tensor]] = []  # parameters, their views as matrices, and the gradients
        self._computed: list[tuple[Tensor, Tensor]] = []  # weights and theirs
        self._sources: dict[int, Tensor] = {}
        for parameter, matrix, gradient, own in zip(parameters, matrices, self.gradients, trained, strict=True):
            if gradient is None:
                continue
            if isinstance(matrix, ShardedWeight):
                self._held.append((parameter, parameter.to_local(), gradient.tensor.to_local()))
            elif parameter.is_leaf and (matrix is parameter or matrix._base is parameter):
                self._held.append((parameter, matrix, gradient))
            else:
                self._computed.append((matrix, gradient))
                self._sources |= {id(source): source for source in own}

    @torch.no_grad()
    def take(self, skipped: Tensor | None) -> None:
        """Takes the step, once the gradients are written; where `skipped` holds, nothing changes and nothing waits."""
        by_rate: dict[int, tuple[float | Tensor, list[Tensor], list[Tensor]]] = {}
        for parameter, weight, gradient in [*self._held, *self._passed_on()]:
            rate = self._rates[id(parameter)]
            _, weights, gradients = by_rate.setdefault(id(rate), (rate, [], []))
            weights.append(weight)
            gradients.append(gradient)
        for rate, weights, gradients in by_rate.values():
            if skipped is not None:  # a factor of 0 would leave a gradient of NaN
                for gradient in gradients:
                    gradient.masked_fill_(skipped.to(gradient.device, non_blocking=True), 0.0)
            if isinstance(rate, Tensor):
                torch._foreach_mul_(gradients, rate)
                torch._foreach_sub_(weights, gradients)
            else:
                torch._foreach_sub_(weights, gradients, alpha=rate)

    def _passed_on(self) -> Iterable[tuple[Tensor, Tensor, Tensor]]:
        """As `_held`, the parameters of computed weights."""
        if not self._computed:
            return
        sources, (weights, gradients) = list(self._sources.values()), zip(*self._computed, strict=True)
        computed = torch.autograd.grad(weights, sources, gradients, allow_unused=True)
        for source, gradient in zip(sources, computed, strict=True):
            if gradient is not None:
                yield source, source, gradient


def _new_gradients(matrices: Sequence[Any], wanted: Sequence[bool], views: WeightViews) -> list[Any]:
    if views.plain:
        return new_gradients(matrices, wanted, views)
    return [empty_gradient(matrix) for matrix, is_wanted in zip(matrices, wanted, strict=True) if is_wanted]


def _trained(weight: Tensor, owner: nn.Module, attribute: str) -> list[Tensor]:
    """The parameters that a gradient of this weight changes."""
    if not weight.requires_grad:
        return []
    return [weight] if weight.is_leaf else [*trained_sources(owner, attribute)]


def _learning_rates(optimizer: torch.optim.Optimizer) -> dict[int, float | Tensor]:
    """The learning rate of each parameter, by its identity."""
    groups = getattr(optimizer, "param_groups", None)
    if not isinstance(groups, list):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer; got a {type(optimizer).__name__}")
    rates: dict[int, float | Tensor] = {}
    for index, group in enumerate(groups):
        rate = group.get("lr")
        if isinstance(rate, Tensor) and rate.numel() == 1:
            rate = rate.detach().reshape(())
        elif not is_number(rate):
            raise ValueError(f"parameter group {index} has lr={rate!r}; step_ needs a finite learning rate")
        rates |= dict.fromkeys(map(id, group["params"]), rate)
    return rates
