"""What a call of a penalty counts: gamma and the reduction, and whether `every` leaves it out."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from ..weight_checks import is_count, is_number
from ..weight_views import compute_dtype
from .calls import Calls
from .gamma import Strength


class Weighting(nn.Module):
    """A module with a gamma, which may change from call to call.

    Attributes:
        calls: the count of calls in training mode, from when `every` or a schedule first needs it; None before.
    """

    def __init__(self, gamma: Any, reduction: str, every: int) -> None:
        super().__init__()
        if not is_count(every):
            raise ValueError(
                f"every must be a positive int, the number of calls of which one is computed; got {every!r}"
            )
        self._every = int(every)
        self.calls: Calls | None = None
        self._all_names: Sequence[Sequence[str]] = ()  # of each weight
        self._use(Strength(gamma, reduction))

    @property
    def gamma(self) -> Any:
        """As it was given; a dict can be read alone. It can be set to anything that the constructor takes."""
        gamma = self._strength.gamma
        return MappingProxyType(gamma) if isinstance(gamma, dict) else gamma

    @gamma.setter
    def gamma(self, gamma: Any) -> None:
        strength = Strength(gamma, self.reduction)
        strength.assign(self._all_names)
        self._use(strength)

    def __setattr__(self, name: str, value: Any) -> None:
        """A gamma goes to its property, which torch would pass by for a parameter or a module."""
        if name == "gamma":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def every(self) -> int:
        """The number of calls in training mode of which one is computed, for all of them."""
        return self._every

    @property
    def reduction(self) -> str:
        """What a matrix counts beside gamma, for all calls."""
        return self._strength.reduction

    def extra_repr(self) -> str:
        gamma, reduction = self._strength.gamma, self.reduction
        gamma = f"{gamma:g}" if is_number(gamma) else f"{gamma!r}"
        return f"gamma={gamma}" + (f", reduction={reduction!r}" if reduction != "sum" else "")

    def _use(self, strength: Strength) -> None:
        """Counts the calls where the schedule or `every` needs that."""
        self._strength = strength
        if self._every > 1 or strength.is_scheduled:
            if self.calls is None:
                self.calls = Calls(self._every).train(self.training)
        elif self.calls is not None:
            del self.calls
            self.calls = None
        self._calls = (self.calls,)  # as torch looks for a module's parts in four dictionaries: 1 us each time

    def _assign(self, names: Sequence[Sequence[str]], *, again: bool) -> None:
        """Finds the gamma of each weight, whose names these are."""
        self._all_names = names  # first: a gamma may be set for a weight that has none
        self._strength.assign(names, again=again)

    def _leaves_out(self, *, with_graph: bool = False) -> bool:
        """Whether `every` leaves this call out, which then counts it.

        Raises:
            RuntimeError: where a graph is built for the second time (`torch.utils.checkpoint`), but the count has moved on.
        """
        [calls] = self._calls
        if calls is None:
            return False
        if with_graph:
            calls.refuse_recomputation()
        if calls.is_due():
            return False
        calls.end_call()
        return True

    def _factor(self) -> float | Tensor:
        """What each matrix's value counts in this call."""
        [calls] = self._calls
        if calls is None:
            return self._strength.factor(None)
        return calls.times() * self._strength.factor(calls.step)

    def _end_call(self) -> None:
        [calls] = self._calls
        if calls is not None:
            calls.end_call()

    def _gammas(self) -> list[float]:
        """The gamma of each weight as it stands, for people."""
        [calls] = self._calls
        return self._strength.of_weights(None if calls is None else calls.step)


def zero(places: Sequence[tuple[nn.Module, str]]) -> Tensor:
    """The value of a call that is left out, for weights at these places: none is gathered or computed for it."""
    found = [owner._parameters.get(attribute) for owner, attribute in places]
    weights = [weight for weight in found if weight is not None] or list(places[0][0].parameters())
    return torch.zeros((), dtype=compute_dtype(weights), device=weights[0].device)
