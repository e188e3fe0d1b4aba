"""Plans and their tables on the device: built once, kept, and never rebuilt while a CUDA graph is captured.

Tables are copied from pinned memory without waiting. What a captured graph reads is kept for good: a graph is replayed
without asking, and nobody says when it is gone. All else is bounded: the least recently used goes first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...weight_checks import check_storage
from .device import DeviceFacts, device_facts
from .heuristics import Configuration, configuration
from .matrices import alignment, matrices_of
from .plan import Item, Items, Plan

PLANS = 64  # kept for a process
ADDRESSES = 16  # tables of addresses kept for a plan: a training step uses one


class Launch(NamedTuple):
    """The items of one launch: those of all matrices of one dtype."""

    storage: torch.dtype
    rows: list[Item]
    items: Tensor

    @property
    def programs(self) -> int:
        return len(self.rows)


class _Table(NamedTuple):
    tensor: Tensor
    stream: Any  # on which it is copied
    copied: Any  # the event after the copy


class Tables:
    """One plan on one device."""

    def __init__(self, plan: Plan, device: torch.device, facts: DeviceFacts):
        self.plan, self.device, self.facts = plan, device, facts
        self._tables: dict[Hashable, _Table] = {}
        self._addresses: OrderedDict[tuple[int, ...], _Table] = OrderedDict()
        self._counters: dict[Any, Tensor] = {}
        self._launches: dict[Hashable, list[tuple[torch.dtype, list[Item], Hashable]]] = {}

    def matrices(self, wanted: Sequence[bool] | None = None) -> Tensor:
        """One row for each matrix; `wanted` says which weights have a place in the gradients."""
        wanted = tuple(wanted) if wanted is not None else (True,) * len(self.plan.gradients)
        return self._table(("matrices", wanted), lambda: self.plan.matrix_table(self.plan.gradient_places(wanted)[0]))

    def entry_orders(self) -> Tensor:
        return self._table(("entry orders",), lambda: self.plan.entry_order_table or [0])

    def launches(self, key: Hashable, plan_items: Callable[[], Items]) -> list[Launch]:
        """The items under this key, on the device."""
        if key not in self._launches:
            self._launches[key] = [(storage, rows, (key, storage)) for storage, rows in plan_items().items()]
        return [
            Launch(storage, rows, self._table(name, partial(list, rows))) for storage, rows, name in self._launches[key]
        ]

    def addresses(self, weights: Sequence[Tensor]) -> Tensor:
        """Where the weights lie now."""
        key = tuple(weight.data_ptr() for weight in weights)
        table = self._addresses.get(key)
        if table is None:
            table = self._addresses[key] = self._upload(list(key), "the addresses of these weights")
            if len(self._addresses) > ADDRESSES:
                self._addresses.popitem(last=False)
        self._addresses.move_to_end(key)
        return self._ready(table)

    def counters(self) -> tuple[Tensor, Tensor, Tensor]:
        """Zeros, which every launch leaves as zeros: one for each tile, one for each matrix, and those of the grid barrier.

        Launches that may run at the same time have counters of their own: one set a stream, one a captured launch.
        """
        needed = (sum(self.plan.residuals.groups_of), len(self.plan.matrices), 2)
        sizes = [count + -count % 4 for count in needed]  # each aligned: what isn't is compiled for once more
        if _capturing(self.device):
            whole = torch.zeros(sum(sizes), dtype=torch.int32, device=self.device)
        else:
            stream = _stream(self.device)
            if stream not in self._counters:
                self._counters[stream] = torch.zeros(sum(sizes), dtype=torch.int32, device=self.device)
            whole = self._counters[stream]
        tiles, matrices, barrier = whole.split(sizes)
        return tiles, matrices, barrier

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
_plans: OrderedDict[Hashable, Tables] = OrderedDict()
_chosen: Configuration | None = None
_lock = threading.Lock()


def tables_for(weights: Sequence[Tensor], groups: Sequence[int], sides: Sequence[int]) -> Tables:
    """The tables of these weights' plan, which shapes, strides, dtypes, alignment, sides and device determine."""
    check_storage(weights)
    device = weights[0].device
    key = (
        tuple((weight.shape, weight.stride(), weight.dtype, alignment(weight)) for weight in weights),
        tuple(groups),
        tuple(sides),
        device,
    )
    with _lock:
        tables = _plans.get(key)
        if tables is None:
            facts = device_facts(device)
            matrices, gradients = matrices_of(weights, groups, sides)
            chosen = _chosen if _chosen is not None else configuration(facts.architecture)
            plan = Plan(matrices, gradients, chosen, facts.multiprocessors)
            tables = _plans[key] = Tables(plan, device, facts)
            if len(_plans) > PLANS:
                _plans.popitem(last=False)
        _plans.move_to_end(key)
    return tables


@contextmanager
def configured(chosen: Configuration) -> Iterator[None]:
    """Plans within the block are of this configuration; those kept from before are put aside."""
    global _plans, _chosen
    with _lock:
        before, _plans, _chosen = (_plans, _chosen), OrderedDict(), chosen
    try:
        yield
    finally:
        with _lock:
            _plans, _chosen = before


def _capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _stream(device: torch.device) -> Any:
    return torch.cuda.current_stream(device) if device.type == "cuda" else None
