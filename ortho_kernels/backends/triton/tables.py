"""Plans and their tables on the device: built once, kept, and never rebuilt while a CUDA graph is captured.

Tables are copied from pinned memory without waiting. What a captured graph reads is kept for good: a graph is replayed
without asking, and nobody says when it is gone. All else is bounded: the least recently used goes first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...weight_checks import check_storage
from .device import device_facts
from .heuristics import Configuration, configuration
from .launch import Launch
from .matrices import Access, access_to, gradient_views, is_aligned
from .plan import Items, Plan
from .records import StridedView, Tables

PLANS = 64  # kept for a process
ADDRESSES = 16  # tables of addresses kept for a plan, and of gradients: a training step uses one


class _Table(NamedTuple):
    tensor: Tensor
    stream: Any  # on which it is copied
    copied: Any  # the event after the copy


class GradientTable(NamedTuple):
    """Where gradients are written: by dtype the first of them, and seen from there the view of each matrix."""

    first: dict[torch.dtype, Tensor]
    views: Tensor
    access: dict[torch.dtype, Access]


class _Recent(OrderedDict):
    """The most recently used, up to `size`."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def find(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self:
            self[key] = make()
            if len(self) > self.size:
                self.popitem(last=False)
        self.move_to_end(key)
        return self[key]


class DevicePlan:
    """One plan on one device."""

    def __init__(self, plan: Plan, device: torch.device):
        self.plan, self.device = plan, device
        self._tables: dict[Hashable, _Table] = {}
        self._launches: dict[Hashable, list[tuple[torch.dtype, int, _Table, dict[str, Any]]]] = {}
        self._addresses = _Recent(ADDRESSES)
        self._gradient_tables = _Recent(ADDRESSES)
        self._counters: dict[Any, Tensor] = {}

    def new(self, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(count, dtype=dtype, device=self.device)

    def current(self) -> AbstractContextManager:
        """Within the block, launches go to this device, whichever is current before."""
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()

    def tables(self, weights: Sequence[Tensor]) -> Tables:
        """What every kernel reads; the addresses are where the weights lie now."""
        key = tuple(weight.data_ptr() for weight in weights)
        addresses = self._addresses.find(key, lambda: self._upload(list(key), "the addresses of these weights"))
        return Tables(
            self._ready(addresses),
            self._table("matrices", lambda: self.plan.rows),
            self._table("entry orders", lambda: self.plan.entry_orders[0] or [0]),
        )

    def gradient_table(self, gradients: Sequence[Tensor], wanted: tuple[bool, ...]) -> GradientTable:
        """Where these gradients lie. One table serves all that lie alike, seen from the first of their dtype."""
        first = {g.dtype: g for g in reversed(gradients)} | {g.dtype: g for g in reversed(gradients) if g.numel()}
        origins = {dtype: gradient.data_ptr() for dtype, gradient in first.items()}
        key = wanted, *(
            (g.device, g.dtype, g.shape, g.stride(), g.numel() and g.data_ptr() - origins[g.dtype], is_aligned(g))
            for g in gradients
        )  # fmt: skip

        def make() -> tuple[_Table, dict[torch.dtype, Access]]:
            places = gradient_views(self.plan.views, self.plan.matrices, wanted, gradients, origins)
            rows = [place if place is not None else StridedView(0, 0, 0, 0) for place in places]
            return self._upload(rows, "where these gradients lie"), access_to(self.plan.matrices, places)

        table, access = self._gradient_tables.find(key, make)
        return GradientTable(first, self._ready(table), access)

    def launches(
        self,
        key: Hashable,
        plan_items: Callable[[], Items],
        specialize: Callable[[torch.dtype], dict[str, Any]],
    ) -> list[Launch]:
        """The launches under this key, their items on the device."""
        if key not in self._launches:
            self._launches[key] = [
                (storage, len(items), self._upload(items, "this plan"), specialize(storage))
                for storage, items in plan_items().items()
            ]
        return [
            Launch(storage, programs, self._ready(table), keywords)
            for storage, programs, table, keywords in self._launches[key]
        ]

    def counters(self) -> tuple[Tensor, Tensor, Tensor]:
        """Zeros, which every launch leaves as zeros: one for each block, one for each matrix, and those of the grid barrier.

        Launches that may run at the same time have counters of their own: one set a stream, one a captured launch.
        """
        needed = (sum(self.plan.residuals.blocks_of), len(self.plan.matrices), 2)
        sizes = [count + -count % 4 for count in needed]  # each aligned: what isn't is compiled for once more
        if _capturing(self.device):
            whole = torch.zeros(sum(sizes), dtype=torch.int32, device=self.device)
        else:
            stream = _stream(self.device)
            if stream not in self._counters:
                self._counters[stream] = torch.zeros(sum(sizes), dtype=torch.int32, device=self.device)
            whole = self._counters[stream]
        blocks, matrices, barrier = whole.split(sizes)
        return blocks, matrices, barrier

    def _table(self, key: Hashable, rows: Callable[[], list]) -> Tensor:
        if key not in self._tables:
            self._tables[key] = self._upload(rows(), "this plan")
        return self._ready(self._tables[key])

    def _upload(self, rows: list, what: str) -> _Table:
        if _capturing(self.device):
            raise RuntimeError(
                f"a CUDA graph is being captured, and {what} would have to be copied to the GPU: run the penalty and its "
                "backward once on the same weights before the capture (the copy must not be part of the graph)"
            )
        table = torch.tensor(rows, dtype=torch.int64)
        if self.device.type != "cuda":
            return _Table(table.to(self.device), None, None)
        tensor = table.pin_memory().to(self.device, non_blocking=True)
        stream = _stream(self.device)
        return _Table(tensor, stream, stream.record_event())

    def _ready(self, table: _Table) -> Tensor:
        if self.device.type == "cuda":
            if _capturing(self.device):
                _read_by_graphs[id(table.tensor)] = table.tensor  # a capture begins with a synchronized device
            elif (stream := _stream(self.device)) != table.stream:
                stream.wait_event(table.copied)
                table.tensor.record_stream(stream)
        return table.tensor


_read_by_graphs: dict[int, Tensor] = {}
_plans = _Recent(PLANS)
_chosen: Configuration | None = None
_lock = threading.Lock()


def device_plan(weights: Sequence[Tensor], groups: Sequence[int], sides: Sequence[int]) -> DevicePlan:
    """The plan of these weights, which shapes, strides, dtypes, alignment, sides and device determine."""
    check_storage(weights)
    device = weights[0].device
    key = (
        tuple((weight.shape, weight.stride(), weight.dtype, is_aligned(weight)) for weight in weights),
        tuple(groups),
        tuple(sides),
        device,
    )

    def make() -> DevicePlan:
        facts = device_facts(device)
        chosen = _chosen if _chosen is not None else configuration(facts.architecture)
        return DevicePlan(Plan.of(weights, groups, sides, chosen, facts.multiprocessors), device)

    with _lock:
        return _plans.find(key, make)


@contextmanager
def configured(chosen: Configuration) -> Iterator[None]:
    """Plans within the block are of this configuration; those kept from before are put aside."""
    global _plans, _chosen
    with _lock:
        before, _plans, _chosen = (_plans, _chosen), _Recent(PLANS), chosen
    try:
        yield
    finally:
        with _lock:
            _plans, _chosen = before


def _capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _stream(device: torch.device) -> Any:
    return torch.cuda.current_stream(device) if device.type == "cuda" else None
