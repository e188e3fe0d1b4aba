"""Where SRIP's power iteration starts in a model: fresh vectors, from a seed or from a generator.

`SeededStart` computes them from (seed, step, the weight's name): no generator is read, so nothing has to be agreed on.
Every process, whatever it has drawn before, computes the same vectors, and a resumed run goes on with those of the run
that was cut off. Each entry has a stream of SplitMix64 of its own, begun at a hash of seed, name and place; the step is
its position. The operator `start_vectors` makes a standard Gaussian number of each.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import ops, reference
from ..backends.protocol import Into, Penalties
from ..graph_reads import read_by_graphs
from ..options import SRIP
from ..weight_views import WeightViews
from .calls import Advancing, StepCount


class Start(Advancing):
    """The start vectors of a list of weights, which are others at each step: each call in training mode is one.

    Args:
        side: the Gram whose order the vectors have.
    """

    follows = False  # whether a step begins where the last one ended

    def __init__(self, side: str) -> None:
        super().__init__()
        self.side = side
        self._views: WeightViews | None = None
        self._names: Sequence[str] = ()

    def fit(self, names: Sequence[str], views: WeightViews) -> None:
        """Takes up the weights of these views, whose names these are. A weight that stays keeps what is its own."""
        if views is not self._views or names is not self._names:
            self._take_up(names, views)
            self._views, self._names = views, names

    def draw(self, views: WeightViews) -> Tensor:
        """The packed vectors of this step, of the weights that were taken up."""
        raise NotImplementedError

    def values(self, weights: list[Tensor], views: WeightViews, options: SRIP, penalties: Penalties) -> Tensor:
        """The differentiable penalty of every matrix.

        Raises:
            RuntimeError: where `torch.utils.checkpoint` runs a part of the model for the second time.
        """
        self.refuse_recomputation()
        start, follow = self.draw(views), self.follows and self.training
        values, last = penalties.srip(weights, views, options, start, follow)
        self.end_call(start, values, last)
        return values

    def values_and_gradients(
        self, weights: list[Tensor], views: WeightViews, options: SRIP, into: Into, penalties: Penalties
    ) -> Tensor:
        """As `values`, without a graph; the gradients go where `into` says."""
        start, follow = self.draw(views), self.follows and self.training
        values, last = penalties.srip_gradients(weights, views, options, start, into, follow)
        self.end_call(start, values, last)
        return values

    def _take_up(self, names: Sequence[str], views: WeightViews) -> None:
        """What `fit` does for weights that are not those of the last call."""

    def _advance(self, *call: Any) -> None:
        """Goes on to the next step. `call` is where this one started, its values, and where it ended if a start follows."""


class SeededStart(StepCount, Start):
    """Vectors that are a function of a seed, a step and each weight's name.

    Args:
        seed: any int; the same in every process, as a constant is.
    """

    def __init__(self, side: str, seed: int) -> None:
        super().__init__(side)
        self.seed = seed
        # No buffer: what to_empty, averaging or broadcasting does to those would be another random stream.
        self._keys = torch.zeros(0, dtype=torch.int64, device="cpu")
        self._sizes: dict[str, int] = {}

    def _take_up(self, names: Sequence[str], views: WeightViews) -> None:
        sizes = dict(zip(names, views.vector_sizes(self.side), strict=True))
        if list(sizes.items()) != list(self._sizes.items()):
            keys = [entry_keys(self.seed, name, size) for name, size in sizes.items()]
            self._keys, self._sizes = torch.cat(keys), sizes
        self._keys = self._keys.to(views.device)
        self.move_to(views.device)

    def draw(self, views: WeightViews) -> Tensor:
        vectors = ops.start_vectors(read_by_graphs(self._keys), self._buffers["step"])
        return vectors if views.dtype is torch.float32 else vectors.to(views.dtype)

    def extra_repr(self) -> str:
        return f"seed={self.seed}"


class GeneratorStart(Start):
    """Vectors from a generator. That it is in the same state in every process is the caller's duty."""

    def __init__(self, side: str, generator: torch.Generator) -> None:
        super().__init__(side)
        self.generator = generator

    def draw(self, views: WeightViews) -> Tensor:
        """Leaves the generator as it was outside training mode, and within a hold."""
        state = self.generator.get_state() if self.held or not self.training else None
        vectors = self._drawn(sum(views.orders(self.side)), views.dtype)
        if state is not None:
            self.generator.set_state(state)
        return vectors.to(views.device)

    def _advance(self, *call: Any) -> None:
        if self.held:  # else the generator has moved on by the draw itself
            start, *_ = call
            self._drawn(start.numel(), start.dtype)

    def _drawn(self, size: int, dtype: torch.dtype) -> Tensor:
        return torch.randn(size, dtype=dtype, device=self.generator.device, generator=self.generator)


def first_vectors(seed: int, name: str, size: int) -> Tensor:
    """The start vectors of one weight at step 0, packed: float32, on the CPU."""
    return ops.start_vectors(entry_keys(seed, name, size), torch.zeros((), dtype=torch.int64, device="cpu"))


def entry_keys(seed: int, name: str, size: int) -> Tensor:
    """Where the streams of a weight's entries begin: int64, on the CPU."""
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    first = int.from_bytes(digest, "little", signed=True)
    return reference.splitmix64(torch.arange(size, device="cpu") * reference.GOLDEN + first)
