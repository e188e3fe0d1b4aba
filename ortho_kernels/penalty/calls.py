"""What a call in training mode moves on: a count of calls, SRIP's start vectors. And how `hold` makes several calls one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..graph_reads import is_captured


class Advancing(nn.Module):
    """State that each call in training mode moves on. Held, it stays, and moves on once afterwards, by the last call."""

    def __init__(self) -> None:
        super().__init__()
        self.held = False
        self._last_call: tuple | None = None  # of those within a hold

    def end_call(self, *call: Any) -> None:
        """To be called after all that may fail, lest one process count a call that others don't."""
        if not self.training:
            return
        if self.held:  # without the call's graph
            self._last_call = tuple(part.detach() if isinstance(part, Tensor) else part for part in call)
        else:
            self._advance(*call)

    def release(self) -> None:
        """Ends a hold."""
        try:
            if self._last_call is not None:
                self._advance(*self._last_call)
        finally:
            self.held, self._last_call = False, None

    def __getstate__(self) -> dict[str, Any]:
        """A copy made within a hold is not held: nobody would release it."""
        return self.__dict__ | {"held": False, "_last_call": None}

    def refuse_recomputation(self) -> None:
        """While autograd is at work, a penalty is computed only to have again what a checkpoint dropped."""
        if (
            self.training
            and not self.held
            and not torch.compiler.is_compiling()
            and torch._C._current_graph_task_id() != -1
        ):
            raise RuntimeError(_RECOMPUTED.format("computed while autograd is at work, as"))

    def _advance(self, *call: Any) -> None:
        """Goes on to the next step."""


class StepCount(Advancing):
    """A count of calls.

    Attributes:
        step: the count, which a checkpoint keeps; int64, on the weights' device.
    """

    step: Tensor

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        with torch.inference_mode(False):  # what is made within it can't count outside
            self.register_buffer("step", torch.zeros((), dtype=torch.int64, device="cpu"))

    def move_to(self, device: torch.device) -> None:
        """Follows a model that has moved and left its penalty behind."""
        if self.step.device != device:
            self.to(device)

    def _advance(self, *_: Any) -> None:
        if torch._C._are_functorch_transforms_active():
            raise RuntimeError(
                "a penalty in training mode counts its calls, which torch.func's transforms don't allow: call "
                "penalty.eval(), which leaves the count as it is"
            )
        self._buffers["step"].add_(1)  # type: ignore[union-attr]

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing_keys, *rest) -> None:
        """A checkpoint from before the count begins at 0."""
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, *rest)
        if (key := f"{prefix}step") in missing_keys:
            missing_keys.remove(key)
            with torch.no_grad():
                self.step.zero_()


class Calls(StepCount):
    """The count of all calls, of which each `every`-th is computed: the first one is."""

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = every
        self._counted = 0  # the same number, for which no device is asked; kept where `every` needs it

    def is_due(self) -> bool:
        """Whether this call is computed: each one in eval mode."""
        if self.every == 1 or not self.training:
            return True
        if torch.compiler.is_compiling():
            self._refuse_tracing()
        if is_captured(self.step.device):
            raise RuntimeError(
                f"a captured call can't be left out: call a penalty of every={self.every} outside of the CUDA graph"
            )
        return self._counted % self.every == 0

    def times(self) -> int:
        """How many calls this one stands for."""
        return self.every if self.training else 1

    def extra_repr(self) -> str:
        return f"every={self.every}"

    def _advance(self, *_: Any) -> None:
        super()._advance()
        if self.every > 1:  # else a compiled call would be compiled for each number
            self._counted += 1

    def _load_from_state_dict(self, state_dict, prefix, *rest) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._counted = int(state_dict.get(f"{prefix}step", 0))

    def _refuse_tracing(self) -> bool:
        raise RuntimeError(
            f"a compiled call can't be left out: call a penalty of every={self.every} outside of torch.compile"
        )

    # As torch.compiler.assume_constant_result does: it runs, and so raises, while the call is traced.
    _refuse_tracing._dynamo_marked_constant = True  # type: ignore[attr-defined]


@contextmanager
def holding(parts: Sequence[Advancing | None]) -> Iterator[None]:
    """Holds the parts that are not held yet, and lets them go on afterwards, also after an exception."""
    free = [part for part in parts if part is not None and not part.held]
    for part in free:
        part.held = True
    try:
        yield
    finally:
        for part in free:
            part.release()


@contextmanager
def uncounted(module: nn.Module) -> Iterator[None]:
    """Within it no call of the module counts, and none has a gradient."""
    moving = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(moving)


def refuse_tracing_apart() -> None:
    """As `refuse_recomputation`, asked outside the graph while Dynamo traces a checkpoint's function apart."""
    from torch._dynamo.symbolic_convert import InstructionTranslator

    try:
        translator = InstructionTranslator.current_tx()
    except AttributeError:
        translator = None
    # An export that is not strict traces without Dynamo, whose last translator may be there still.
    if translator is not None and translator.output.current_tracer.parent is not None:
        raise RuntimeError(_RECOMPUTED.format("traced"))


_RECOMPUTED = (
    "the penalty is {} within torch.utils.checkpoint, whose second run would be another step than the first: "
    "call it outside, or in eval mode"
)
