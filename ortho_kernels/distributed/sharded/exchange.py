"""The way of matrices to those who compute them, and of gradients back: one all-to-all each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from .layout import Interval
from .local_weights import LocalWeights
from .partition import Part, Partition
from .pieces import Matrix, Piece


class _Held(NamedTuple):
    """A rectangle of what this rank holds of a weight, `(batch, rows, cols)`."""

    weight: int
    batch: int
    rows: Interval
    cols: Interval

    def of(self, locals_: Sequence[Any]) -> Tensor:
        return locals_[self.weight][self.batch, self.rows[0] : self.rows[1], self.cols[0] : self.cols[1]]


class _Received(NamedTuple):
    """A rectangle of a part that this rank owns, by its place among them."""

    part: int
    rows: Interval
    cols: Interval

    def of(self, tensors: Sequence[Tensor]) -> Tensor:
        return tensors[self.part][self.rows[0] : self.rows[1], self.cols[0] : self.cols[1]]


class Exchange:
    """One round of a partition, as one rank takes part in it.

    Attributes:
        owned: the parts that this rank owns.
    """

    def __init__(self, partition: Partition, parts: Sequence[Part], rank: int) -> None:
        self.owned = [part for part in parts if part.owner == rank]
        self._shapes = [_shape(partition.matrices[part.matrix], part) for part in self.owned]
        self._in_place: list[_Held | None] = []
        self._sent: list[list[_Held]] = [[] for _ in range(partition.ranks)]  # by the rank that gets them
        self._received: list[list[_Received]] = [[] for _ in range(partition.ranks)]  # by the rank that sends them
        self._moves = False  # whether anybody sends anything
        for part in parts:
            matrix, in_place = partition.matrices[part.matrix], partition.is_in_place(part)
            self._moves = self._moves or not in_place
            own = len(self._in_place)
            if part.owner == rank:
                self._in_place.append(None)
            for piece, depth in partition.sources(part):
                held, received = _rectangles(matrix, piece, depth, part, own)
                if in_place:
                    if part.owner == rank:
                        self._in_place[-1] = held
                    continue
                if piece.rank == rank:
                    self._sent[part.owner].append(held)
                if part.owner == rank:
                    self._received[piece.rank].append(received)
        self._sent_sizes = [sum(map(_entries, held)) for held in self._sent]
        self._received_sizes = [sum(map(_entries, received)) for received in self._received]

    def gather(self, weights: Sequence[Any], dtype: torch.dtype, device: torch.device, group: Any) -> list[Tensor]:
        """The parts that this rank owns, of weights `(batch, rows, cols)`; views of these where a part is in place."""
        parts = [
            held.of(weights) if held is not None else torch.empty(shape, dtype=dtype, device=device)
            for held, shape in zip(self._in_place, self._shapes, strict=True)
        ]
        if self._moves:
            sent = _packed([held.of(weights) for to in self._sent for held in to], dtype, device)
            buffer = _all_to_all(sent, self._sent_sizes, self._received_sizes, group)
            del sent
            _take_apart(buffer, [received.of(parts) for source in self._received for received in source])
        return parts

    def targets(self, parts: Sequence[Tensor], held: LocalWeights) -> list[Tensor]:
        """Where the gradients of the parts go: in place to what this rank holds, else to a new tensor."""
        new = torch.zeros_like if held.accumulate else torch.empty_like
        return [
            new(part) if place is None or held.targets[place.weight] is None else place.of(held.targets)
            for place, part in zip(self._in_place, parts, strict=True)
        ]

    def scatter(
        self, gradients: Sequence[Tensor], held: LocalWeights, dtype: torch.dtype, device: torch.device, group: Any
    ) -> None:
        """The gradients of parts to those who hold the weights; where none is wanted it is dropped."""
        if not self._moves:
            return
        sent = _packed([received.of(gradients) for source in self._received for received in source], dtype, device)
        buffer = _all_to_all(sent, self._received_sizes, self._sent_sizes, group)
        del sent
        places = [each for to in self._sent for each in to]
        for place, gradient in zip(places, buffer.split(list(map(_entries, places))), strict=True):
            if held.targets[place.weight] is not None:
                target = place.of(held.targets)
                gradient = gradient.view(target.shape)
                target.add_(gradient) if held.accumulate else target.copy_(gradient)


def _rectangles(matrix: Matrix, piece: Piece, depth: Interval, part: Part, place: int) -> tuple[_Held, _Received]:
    """What a piece holds of a part, in the piece's rank and in the owner's."""
    within = (depth[0] - part.depth[0], depth[1] - part.depth[0])
    order = matrix.order_of(piece)
    rows, cols = (order, depth) if matrix.by_rows else (depth, order)
    first = piece.first_row - piece.rows[0]
    held_rows, held_cols = (rows[0] + first, rows[1] + first), (cols[0] - piece.cols[0], cols[1] - piece.cols[0])
    received = (order, within) if matrix.by_rows else (within, order)
    return _Held(matrix.weight, piece.batch, held_rows, held_cols), _Received(place, *received)


def _shape(matrix: Matrix, part: Part) -> tuple[int, int]:
    depth = part.depth[1] - part.depth[0]
    return (matrix.order, depth) if matrix.by_rows else (depth, matrix.order)


def _entries(rectangle: _Held | _Received) -> int:
    return (rectangle.rows[1] - rectangle.rows[0]) * (rectangle.cols[1] - rectangle.cols[0])


def _packed(tensors: Sequence[Tensor], dtype: torch.dtype, device: torch.device) -> Tensor:
    """One after the other, without a copy of any in between."""
    buffer = torch.empty(sum(tensor.numel() for tensor in tensors), dtype=dtype, device=device)
    for place, tensor in zip(buffer.split([tensor.numel() for tensor in tensors]), tensors, strict=True):
        place.view(tensor.shape).copy_(tensor)
    return buffer


def _take_apart(buffer: Tensor, targets: Sequence[Tensor]) -> None:
    for target, received in zip(targets, buffer.split([target.numel() for target in targets]), strict=True):
        target.copy_(received.view(target.shape))


def _all_to_all(buffer: Tensor, sent: Sequence[int], received: Sequence[int], group: Any) -> Tensor:
    """As bytes, which every backend of torch.distributed knows."""
    size = buffer.element_size()
    result = buffer.new_empty(sum(received))
    dist.all_to_all_single(
        result.view(torch.uint8),
        buffer.view(torch.uint8),
        [size * count for count in received],
        [size * count for count in sent],
        group=group,
    )
    return result
