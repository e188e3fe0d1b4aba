"""Rows of numbers on the device, and the queue of launches that reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import graph_reads


class Queue(NamedTuple):
    """Where launches go now: the current stream, its handle, and whether a CUDA graph captures it."""

    stream: Any
    handle: int
    capturing: bool

    @classmethod
    def of(cls, device: torch.device) -> Queue:
        if device.type != "cuda":
            return cls(None, 0, graph_reads.is_captured(device))
        stream = torch.cuda.current_stream(device)
        return cls(stream, stream.cuda_stream, graph_reads.is_captured(device))


class Table:
    """Rows of int64 on the device."""

    def __init__(self, rows: Sequence, what: str, device: torch.device, queue: Queue):
        if queue.capturing:
            raise RuntimeError(
                f"a CUDA graph is being captured, and {what} would have to be copied to the GPU: run the penalty and its "
                "backward once on the same weights before the capture (the copy must not be part of the graph)"
            )
        table = torch.tensor(rows, dtype=torch.int64, device="cpu")  # whatever the default device is
        if device.type == "cuda":
            self._rows = table.pin_memory().to(device, non_blocking=True)
            self._copied = queue.stream.record_event()
        else:
            self._rows = table.to(device)
        self._readers = {queue.handle}  # streams that come after the copy

    def read_on(self, queue: Queue) -> Tensor:
        if queue.capturing:
            return graph_reads.read_by_graphs(self._rows)  # a capture begins with a synchronized device
        if queue.handle not in self._readers:
            queue.stream.wait_event(self._copied)
            self._rows.record_stream(queue.stream)
            self._readers.add(queue.handle)
        return self._rows
