"""Whether losses and gradients are finite, known a step late so that the host never waits; and where it began if not."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..distributed.processes import ALONE, Ranks
from ..distributed.sharding import local_part
from ..host_copies import HostCopy

BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by the bytes of a float


@dataclass(frozen=True)
class Batch:
    """With what it takes to run it once more."""

    pictures: Any  # as Views takes them
    number: int
    loss: Tensor


@dataclass(frozen=True)
class NotFinite:
    """A step that was not finite, and the first of these that was not: a batch's loss, the penalty, a gradient."""

    step: int
    loss: float | None = None
    batch: Batch | None = None
    penalty: float | None = None
    parameter: str | None = None


@dataclass(frozen=True)
class _Step:
    number: int
    batches: list[Batch]
    parameters: list[str]
    figures: HostCopy  # the loss of each batch, the penalty, then the norm of each parameter's gradient

    def verdict(self) -> NotFinite | None:
        figures = self.figures.values()
        count = len(self.batches)
        for loss, batch in zip(figures[:count], self.batches, strict=True):
            if not math.isfinite(loss):
                return NotFinite(self.number, loss, batch)
        penalty, *norms = figures[count:]
        if not math.isfinite(penalty):
            return NotFinite(self.number, penalty=penalty)
        # Backward goes from the last parameter to the first.
        for norm, name in zip(reversed(norms), reversed(self.parameters), strict=True):
            if not math.isfinite(norm):
                return NotFinite(self.number, parameter=name)
        return None


class FiniteSteps:
    """From the first step that is not finite on, all gradients are set to zero on the device. So no weight is harmed until
    the host knows of it, and the cause can still be found."""

    def __init__(self, ranks: Ranks = ALONE) -> None:
        self._ranks = ranks
        self._batches: list[Batch] = []  # of the step under way
        self._unread: deque[_Step] = deque()
        self._finite: Tensor | None = None  # so far, on the device

    def add_batch(self, batch: Batch) -> None:
        self._batches.append(batch)

    def close(self, step: int, penalty: Tensor, gradients: dict[str, Tensor]) -> None:
        """Ends a step whose gradients, the penalty's included, are complete; a part of them, where weights are sharded."""
        parts = [local_part(gradient) for gradient in gradients.values()]
        losses = [batch.loss.detach() for batch in self._batches]
        figures = torch.stack([*losses, penalty, *(torch._foreach_norm(parts) if parts else [])])
        if self._ranks.count > 1:  # what one process has seen stops all, for the same reason
            dist.all_reduce(figures)
        finite = figures.isfinite().all()
        self._finite = finite if self._finite is None else self._finite & finite
        if parts:  # as bits: zero times NaN is NaN
            torch._foreach_mul_([part.view(BITS[part.element_size()]) for part in parts], self._finite)
        self._unread.append(_Step(step, self._batches, list(gradients), HostCopy(figures)))
        self._batches = []

    def first_not_finite(self, wait: bool) -> NotFinite | None:
        """Of the closed steps not yet looked at: of those whose figures have arrived, or with `wait` of all."""
        while self._unread and (wait or self._unread[0].figures.arrived()):
            if (bad := self._unread.popleft().verdict()) is not None:
                return bad
        return None


def first_non_finite_weight(module: nn.Module) -> str | None:
    """The name of the first parameter that holds NaN or Inf, in the order of the forward pass. Of sharded weights this
    process's parts are looked at: others may not be asking."""
    return next((name for name, value in module.named_parameters() if not local_part(value).isfinite().all()), None)


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
