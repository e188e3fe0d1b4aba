"""What a call of a penalty counts: gamma and the reduction, and whether `every` leaves it out."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..weight_checks import is_count
from ..weight_views import compute_dtype
from .calls import Calls
from .gamma import Strength
from .schedules import is_number


class Weighting(nn.Module):
    """A module with a gamma, which may change from call to call.

    Attributes:
        every: the number of calls in training mode of which one is computed, for all of them.
        calls: the count of calls in training mode; None where neither `every` nor a schedule needs it.
    """

    def __init__(self, gamma: Any, reduction: str, every: int) -> None:
        super().__init__()
        if not is_count(every):
            raise ValueError(
                f"every must be a positive int, the number of calls of which one is computed; got {every!r}"
            )
        self.every = int(every)
        self.calls: Calls | None = None
        self._names: Sequence[Sequence[str]] = ()  # all names of each weight
        self._use(Strength(gamma, reduction))

    @property
    def gamma(self) -> Any:
        """As it was given. It can be set to anything that the constructor takes."""
        return self._strength.gamma

    @gamma.setter
    def gamma(self, gamma: Any) -> None:
        strength = Strength(gamma, self._strength.reduction)
        strength.assign(self._names)
        self._use(strength)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        if name == "gamma":  # what torch calls for a parameter that is set
            raise ValueError("gamma requires a gradient, which the penalty doesn't give it: detach it")
        super().register_parameter(name, param)

    def extra_repr(self) -> str:
        gamma = f"{self.gamma:g}" if is_number(self.gamma) else f"{self.gamma!r}"
        reduction = self._strength.reduction
        return f"gamma={gamma}" + (f", reduction={reduction!r}" if reduction != "sum" else "")

    def _use(self, strength: Strength) -> None:
        """Counts the calls where the schedule or `every` needs that."""
        self._strength = strength
        if self.every > 1 or strength.is_scheduled:
            if self.calls is None:
                self.calls = Calls(self.every).train(self.training)
        elif self.calls is not None:
            del self.calls
            self.calls = None
        self._calls = (self.calls,)  # as torch looks for a module's parts in four dictionaries: 1 us each time

    def _assign(self, names: Sequence[Sequence[str]], *, again: bool) -> None:
        """Finds the gamma of each weight, whose names these are."""
        self._names = names  # first: a gamma may be set for a weight that has none
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
