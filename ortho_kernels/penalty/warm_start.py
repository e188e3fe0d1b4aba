"""SRIP's vectors, kept from step to step: with them the power iteration converges over a training run at no cost."""

import sys
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..graph_reads import read_by_graphs
from ..weight_views import WeightViews
from .start import Start, first_vectors


class WarmStart(Start):
    """The vectors x_m of every weight after the last step: a buffer each, so they survive checkpoints and moves.

    Buffers are named as their weights, with slashes for dots (`buffer_name`). In training mode the vectors move on with
    every evaluation, else they stay. A weight that is new, or has another order than before, starts from `first_vectors`.

    `load_state_dict(strict=False)` gives first vectors, and a warning, to weights whose vectors are missing or of another
    size in the checkpoint; with `strict=True` these are torch's usual errors.
    """

    follows = True

    def __init__(self, side: str, seed: int) -> None:
        super().__init__(side)
        self.seed = seed
        self._matrix = torch.zeros(0, dtype=torch.int64, device="cpu")  # of each entry
        self._own: dict[str, str] = {}  # the weight of each buffer
        self._sizes: list[int] = []

    def _take_up(self, names: Sequence[str], views: WeightViews) -> None:
        self._last_call = None  # its vectors are of other weights
        before, self._own = self._own, {buffer_name(name): name for name in names}
        for gone in before.keys() - self._own.keys():
            del self._buffers[gone]
        self._sizes = views.vector_sizes(self.side)
        with torch.inference_mode(False):  # lest what is made here could not be trained with
            for (own, name), size in zip(self._own.items(), self._sizes, strict=True):
                if own not in self._buffers or self._buffers[own].numel() != size:  # type: ignore[union-attr]
                    self.register_buffer(own, first_vectors(self.seed, name, size).to(views.dtype))
            orders = torch.tensor(views.orders(self.side), device="cpu")
            self._matrix = torch.arange(len(orders), device="cpu").repeat_interleave(orders).to(views.device)
            if any(vector.device != views.device for vector in self._vectors()):
                self.to(views.device)  # the model has moved and left its penalty behind

    def draw(self, views: WeightViews) -> Tensor:
        return torch.cat(self._vectors()).to(views.device, views.dtype)

    def _vectors(self) -> list[Tensor]:
        return [self._buffers[name] for name in self._own]  # type: ignore[misc]

    def _advance(self, *call: Any) -> None:
        start, values, last = call
        with torch.no_grad():
            # A zero vector (of R = 0), or one of a weight that holds NaN or Inf, would stay so for ever, whatever W becomes:
            # the one before it is kept instead. Only a finite number that is not 0 is 1 over itself.
            matrix = read_by_graphs(self._matrix.to(values.device))
            moved = torch.where((values / values == 1)[matrix], last, start)
            torch._foreach_copy_(self._vectors(), moved.split(self._sizes))

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing_keys, *rest) -> None:
        fresh = [
            own
            for own in self._own
            if (given := state_dict.get(prefix + own)) is None or given.shape != self._buffers[own].shape  # type: ignore[union-attr]
        ]
        unknown = [
            key for key in state_dict if key.startswith(prefix) and key.removeprefix(prefix) not in self._buffers
        ]
        if (fresh or unknown) and not _loading_strictly():
            for own in fresh:
                state_dict.pop(prefix + own, None)
                vector: Any = self._buffers[own]
                vector.copy_(first_vectors(self.seed, self._own[own], vector.numel()))
            warnings.warn(
                f"warm start: the checkpoint has no fitting vectors for {fresh}, which start afresh, and has {unknown}, "
                "which no weight here is called",
                stacklevel=2,
            )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, *rest)


def buffer_name(weight: str) -> str:
    """A weight's name without dots, which buffers can't have, and with a slash, which no attribute has."""
    name = weight.replace("/", "//").replace(".", "/")
    return name if "/" in name else f"/{name}"


def _loading_strictly() -> bool:
    """The `strict` of the `load_state_dict` under way: torch hands True to the modules in either case."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code is nn.Module.load_state_dict.__code__:
            return frame.f_locals.get("strict", True)
        frame = frame.f_back  # type: ignore[assignment]
    return True
