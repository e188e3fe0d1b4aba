"""Plans and their tables on the device: built once, kept, and never rebuilt while a CUDA graph is captured.

Tables are copied from pinned memory without waiting. What a captured graph reads is kept for good: a graph is replayed
without asking, and nobody says when it is gone. All else is bounded: the least recently used goes first.

In a training weights stay where they are, and gradients come back to places where they were. So a call finds all that it
needs by the addresses of its tensors, each of which is asked once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...ops import gradient_name
from ...weight_checks import check_storage
from ...weight_views import WeightViews, weight_views
from .device import device_facts
from .heuristics import Configuration, configuration
from .launch import Launch
from .matrices import VECTOR_BYTES, Access, access_to, gradient_views
from .plan import Items, Plan
from .records import StridedView, Tables
from .rows import Queue, Table

PLANS = 64  # kept for a process, and as many lists of weights where they lie
PLACES = 16  # of gradients, kept for a plan: a training step uses few


class _Recent(OrderedDict):
    """The most recently used, up to `size`."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size
        self._lock = threading.Lock()
        self._latest: tuple[Any, Any] = None, None

    def find(self, key: Hashable, make: Callable[[], Any]) -> Any:
        latest, value = self._latest
        if key == latest:  # as a rule; to compare takes less than to hash
            return value
        with self._lock:
            if key not in self:
                self[key] = make()
                if len(self) > self.size:
                    self.popitem(last=False)
            self.move_to_end(key)
            value = self[key]
            self._latest = key, value
        return value


class GradientPlace:
    """Where the gradients of one call lie, and the launches that write there.

    Attributes:
        first: of each dtype, the index of the gradient from which the others are seen.
        views: the view of each matrix from there.
    """

    def __init__(self, wanted: tuple[int, ...], first: dict[torch.dtype, int], views: Table, access: Any):
        self.wanted, self.first, self.views = wanted, first, views
        self.access: dict[torch.dtype, Access] = access
        self._launches: dict[Hashable, list[Launch]] = {}

    def launches(self, key: Hashable, find: Callable[[], list[Launch]]) -> list[Launch]:
        """Launches that depend on this place and on the key."""
        if key not in self._launches:
            self._launches[key] = find()
        return self._launches[key]


class DevicePlan:
    """One plan on one device."""

    def __init__(self, plan: Plan, device: torch.device):
        self.plan, self.device = plan, device
        self._tables: dict[str, Table] = {}
        self._launches: dict[Hashable, list[Launch]] = {}
        self._places = _Recent(PLACES)
        self._places_alike = _Recent(PLACES)
        self._counters: dict[int, Sequence[Tensor]] = {}

    def new(self, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(count, dtype=dtype, device=self.device)

    def current(self) -> AbstractContextManager:
        """Within the block, launches go to this device, whichever is current before."""
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()

    def table(self, name: str, rows: Callable[[], list], queue: Queue) -> Tensor:
        if name not in self._tables:
            self._tables[name] = Table(rows(), "this plan", self.device, queue)
        return self._tables[name].read_on(queue)

    def gradient_place(self, gradients: Sequence[Tensor], wanted: Sequence[int], queue: Queue) -> GradientPlace:
        """The place of these gradients, one for each weight that is wanted; all that lie alike share one.

        Raises `RuntimeError`, naming the weight, where a gradient doesn't fit.
        """
        forms = (
            tuple(wanted),
            *(tuple(map(ask, gradients)) for ask in (attrgetter("dtype"), Tensor.size, Tensor.stride)),
        )
        addresses = tuple(map(Tensor.data_ptr, gradients))
        return self._places.find((addresses, forms), lambda: self._place_alike(gradients, addresses, forms, queue))

    def _place_alike(self, gradients: Sequence[Tensor], addresses: Sequence[int], forms: tuple, queue: Queue) -> Any:
        wanted = forms[0]
        indices = [index for index, want in enumerate(wanted) if want]
        if len(wanted) != len(self.plan.views) or len(gradients) != len(indices):
            raise RuntimeError(
                f"expected `wanted` for {len(self.plan.views)} weights and a gradient for each that is wanted, got "
                f"{len(gradients)} gradients and {len(wanted)} `wanted`, of which {len(indices)} are"
            )
        check_storage(gradients, [gradient_name(index) for index in indices])
        backwards = list(enumerate(gradients))[::-1]
        first = {g.dtype: i for i, g in backwards} | {g.dtype: i for i, g in backwards if g.numel()}
        origins = {dtype: addresses[index] for dtype, index in first.items()}
        seen_from_first = tuple(
            (g.device, g.numel() and address - origins[g.dtype], address % VECTOR_BYTES)
            for g, address in zip(gradients, addresses, strict=True)
        )

        def make() -> GradientPlace:
            places = gradient_views(self.plan.views, self.plan.matrices, wanted, gradients, origins)
            rows = [place if place is not None else StridedView(0, 0, 0, 0) for place in places]
            views = Table(rows, "where these gradients lie", self.device, queue)
            return GradientPlace(wanted, first, views, access_to(self.plan.matrices, places))

        return self._places_alike.find((seen_from_first, forms), make)

    def launches(
        self,
        key: Hashable,
        plan_items: Callable[[], Items],
        specialize: Callable[[torch.dtype], dict[str, Any]],
        queue: Queue,
    ) -> list[Launch]:
        """The launches under this key, their items on the device."""
        if key not in self._launches:
            self._launches[key] = [
                Launch(storage, len(items), Table(items, "this plan", self.device, queue), specialize(storage))
                for storage, items in plan_items().items()
            ]
        return self._launches[key]

    def counters(self, queue: Queue) -> Sequence[Tensor]:
        """Zeros, which every launch leaves as zeros: one for each block of a residual, and one for each matrix.

        Launches that may run at the same time have counters of their own: one set a stream, one a captured launch.
        """
        if queue.capturing:
            return self._new_counters()
        if queue.handle not in self._counters:
            self._counters[queue.handle] = self._new_counters()
        return self._counters[queue.handle]

    def _new_counters(self) -> Sequence[Tensor]:
        needed = (self.plan.residual_blocks, len(self.plan.matrices))
        sizes = [count + -count % 4 for count in needed]  # each aligned: what isn't is compiled for once more
        return torch.zeros(sum(sizes), dtype=torch.int32, device=self.device).split(sizes)


class WeightPlace(NamedTuple):
    """The weights of one call where they lie."""

    device: DevicePlan
    addresses: Table

    def tables(self, queue: Queue) -> Tables:
        """What every kernel reads."""
        plan = self.device.plan
        return Tables(
            self.addresses.read_on(queue),
            self.device.table("matrices", lambda: plan.rows, queue),
            self.device.table("entry orders", lambda: plan.entry_orders[0] or [0], queue),
        )


class _Kept(NamedTuple):
    """What is kept for a process, under one configuration; None stands for that of each device's architecture."""

    chosen: Configuration | None
    plans: _Recent
    places: _Recent

    @classmethod
    def nothing(cls, chosen: Configuration | None = None) -> _Kept:
        return cls(chosen, _Recent(PLANS), _Recent(PLANS))


_kept = _Kept.nothing()


def weight_place(
    weights: Sequence[Tensor], groups: Sequence[int], sides: Sequence[int], views: WeightViews | None = None
) -> WeightPlace:
    """The place of these weights, and their plan, which shapes, strides, dtypes, alignment, sides and device determine.

    `views` are those of the weights, where the caller has them.
    """
    views = weight_views(weights, groups) if views is None else views
    addresses, sides, kept = tuple(map(Tensor.data_ptr, weights)), tuple(sides), _kept
    device = views.device

    def make_plan() -> DevicePlan:
        facts = device_facts(device)
        chosen = kept.chosen if kept.chosen is not None else configuration(facts.architecture)
        return DevicePlan(Plan.of(weights, groups, sides, chosen, facts.multiprocessors), device)

    def make() -> WeightPlace:
        check_storage(weights)
        aligned = tuple(address % VECTOR_BYTES == 0 for address in addresses)
        plan = kept.plans.find((views, sides, aligned), make_plan)
        return WeightPlace(plan, Table(addresses, "the addresses of these weights", device, Queue.of(device)))

    return kept.places.find((addresses, sides, views), make)


@contextmanager
def configured(chosen: Configuration) -> Iterator[None]:
    """Plans within the block are of this configuration; those kept from before are put aside."""
    global _kept
    before, _kept = _kept, _Kept.nothing(chosen)
    try:
        yield
    finally:
        _kept = before
