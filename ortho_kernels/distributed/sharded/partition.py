"""Who computes soft orthogonality of which part of which matrix, where the weights are sharded.

A matrix goes to one owner, by all-to-all, or it is cut along its depth into parts whose Grams are added up. A matrix that is
sharded along its depth is cut already, and its parts stay where they are. Whichever moves less is taken. A matrix that is
too much work for one rank, beside what stays in place, is cut. Owners get theirs by what each costs, the largest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...weight_views import triangle
from ..assignment import assign, gram_cost
from .layout import Interval, chunk
from .pieces import Matrix, Piece, overlap, total

OVERLOAD = 1.4  # a matrix is cut that would bring a rank above this many fair shares
ROUND_BYTES = 2**25  # what one rank owns in a round, unless a single part is larger


class Part(NamedTuple):
    """What one rank computes of a matrix: its Gram over an interval of the depth, and the gradient there."""

    matrix: int
    owner: int
    depth: Interval


class Partition:
    """The parts of all matrices, in rounds, of which one after the other is exchanged and computed.

    Args:
        matrices: those of weights of one dtype that one group shards.
        itemsize: the bytes of an entry.
        ranks: how many there are in the group.
        can_cut: whether Grams may be added up: not where rows are scaled to length 1 first, or R is measured by another
            norm than Frobenius'.
        with_gradient: whether gradients go back.

    Attributes:
        rounds: lists of parts; those of one matrix are in one round.
    """

    def __init__(
        self, matrices: Sequence[Matrix], itemsize: int, ranks: int, can_cut: bool, with_gradient: bool
    ) -> None:
        self.matrices, self.itemsize, self.ranks = matrices, itemsize, ranks
        self.with_gradient = with_gradient
        self._loads = [0.0] * ranks
        costs = [gram_cost(matrix.order, matrix.depth) for matrix in matrices]
        parts: dict[int, list[Part]] = {}
        left = []
        for index, matrix in enumerate(matrices):
            if matrix.is_whole or (can_cut and self._sums_move_less(index)):
                parts[index] = self._place([(piece.rank, matrix.depth_of(piece)) for piece in matrix.pieces], index)
            else:
                left.append(index)
        if can_cut and ranks > 1:
            for index in sorted(left, key=lambda index: -costs[index]):
                if costs[index] > OVERLOAD * sum(costs) / ranks - min(self._loads):
                    parts[index] = self._place(self._cut(index), index)
                    left.remove(index)
        for index, owner in zip(left, assign([costs[index] for index in left], ranks, self._loads), strict=True):
            parts[index] = self._place([(owner, (0, matrices[index].depth))], index)
        self.rounds = self._in_rounds(parts)

    @property
    def parts(self) -> list[Part]:
        return [part for parts in self.rounds for part in parts]

    def is_complete(self, part: Part) -> bool:
        """Whether the part is all of its matrix."""
        return part.depth == (0, self.matrices[part.matrix].depth)

    def sources(self, part: Part) -> list[tuple[Piece, Interval]]:
        """The pieces that hold some of a part, each with the interval of the depth."""
        matrix = self.matrices[part.matrix]
        shared = [(piece, overlap(matrix.depth_of(piece), part.depth)) for piece in matrix.pieces]
        return [(piece, depth) for piece, depth in shared if depth is not None]

    def is_in_place(self, part: Part) -> bool:
        """Whether its owner holds all of it."""
        sources = self.sources(part)
        return len(sources) == 1 and sources[0][0].rank == part.owner and sources[0][1] == part.depth

    # What it takes, counted

    def cost(self, part: Part) -> float:
        """In multiply-adds, of value and gradient."""
        return gram_cost(self.matrices[part.matrix].order, part.depth[1] - part.depth[0])

    def loads(self) -> list[float]:
        """The multiply-adds of every rank."""
        return self._loads_of(self.parts)

    def waiting(self) -> float:
        """The multiply-adds one after the other: in each round all wait for the rank with most of them."""
        return sum(max(self._loads_of(parts)) for parts in self.rounds)

    def exchanged_bytes(self) -> int:
        """What all ranks receive from others, there and back, by all-to-all."""
        there = sum(size for part in self.parts for rank, size in self._held(part) if rank != part.owner)
        return there * (2 if self.with_gradient else 1)

    def summed_bytes(self, entry: int = 4) -> int:
        """What all ranks receive for the sums of Grams, by a ring: 2 (P - 1) N."""
        return 2 * (self.ranks - 1) * entry * self._summed_entries(self.parts)

    def memory(self, entry: int = 4) -> list[int]:
        """What each rank allocates at most, in bytes, beyond weights and gradients: in the round that takes the most.

        These are the matrices that it receives, their gradients, and what it sends or its residuals, whichever is more.

        Args:
            entry: the bytes of an entry of a residual.
        """
        rounds = [self._round_memory(parts, entry) for parts in self.rounds]
        return [max(held) for held in zip(*rounds, strict=True)] or [0] * self.ranks

    def _loads_of(self, parts: Sequence[Part]) -> list[float]:
        loads = [0.0] * self.ranks
        for part in parts:
            loads[part.owner] += self.cost(part)
        return loads

    def _round_memory(self, parts: Sequence[Part], entry: int) -> list[int]:
        received, sent, complete, cut = ([0] * self.ranks for _ in range(4))
        for part in parts:
            residuals = complete if self.is_complete(part) else cut
            order = self.matrices[part.matrix].order
            residuals[part.owner] += entry * (triangle(order) + order)  # the diagonal is worked on apart
            if not self.is_in_place(part):
                for rank, size in self._held(part):
                    received[part.owner] += size
                    sent[rank] += size
        summed, tensors = entry * self._summed_entries(parts), 2 if self.with_gradient else 1
        return [
            tensors * received[rank] + max(sent[rank], complete[rank], summed + cut[rank]) for rank in range(self.ranks)
        ]

    def _held(self, part: Part) -> list[tuple[int, int]]:
        """The ranks that hold some of a part, each with the bytes of that."""
        matrix, size = self.matrices[part.matrix], self.itemsize
        return [
            (piece.rank, total([matrix.order_of(piece)]) * total([depth]) * size) for piece, depth in self.sources(part)
        ]

    def _summed_entries(self, parts: Sequence[Part]) -> int:
        """Of the residuals that are sums over the ranks."""
        cut = {part.matrix for part in parts if not self.is_complete(part)}
        return sum(triangle(self.matrices[index].order) for index in cut)

    def _place(self, owned: Sequence[tuple[int, Interval]], index: int) -> list[Part]:
        """The parts of a matrix, from who owns which interval of the depth."""
        parts = [Part(index, owner, depth) for owner, depth in owned]
        for part in parts:
            self._loads[part.owner] += self.cost(part)
        return parts

    def _sums_move_less(self, index: int) -> bool:
        """Whether a matrix is cut along its depth, and its Grams are less to move than it is itself."""
        matrix = self.matrices[index]
        summed = 2 * (self.ranks - 1) * triangle(matrix.order) * 4
        moved = matrix.order * matrix.depth * self.itemsize * (self.ranks - 1) / self.ranks
        return matrix.is_cut_along_depth and summed < moved * (2 if self.with_gradient else 1)

    def _cut(self, index: int) -> list[tuple[int, Interval]]:
        """For each rank an interval of a matrix's depth: where it is cut along that, what the rank holds."""
        matrix = self.matrices[index]
        if matrix.is_cut_along_depth:
            return [(piece.rank, matrix.depth_of(piece)) for piece in matrix.pieces]
        intervals = [chunk(matrix.depth, self.ranks, rank) for rank in range(self.ranks)]
        return [(rank, depth) for rank, depth in enumerate(intervals) if depth[0] < depth[1]]

    def _in_rounds(self, parts: dict[int, list[Part]]) -> list[list[Part]]:
        """The largest matrices first, as many as leave each rank's share below `ROUND_BYTES`."""
        rounds: list[list[Part]] = []
        held: list[int] = []
        for index in sorted(parts, key=lambda index: (-self._bytes(parts[index][0]), index)):
            more = [0] * self.ranks
            for part in parts[index]:
                more[part.owner] += self._bytes(part)
            sums = [(extra, own, extra + own) for extra, own in zip(more, held, strict=bool(rounds))]
            if not rounds or any(extra and own and both > ROUND_BYTES for extra, own, both in sums):
                rounds.append([])
                held = [0] * self.ranks
            rounds[-1] += parts[index]
            held = [own + extra for own, extra in zip(held, more, strict=True)]
        return rounds

    def _bytes(self, part: Part) -> int:
        """What the owner is sent of a part, or keeps of its Gram."""
        matrix = self.matrices[part.matrix]
        if self.is_in_place(part):
            return 4 * triangle(matrix.order)
        return matrix.order * (part.depth[1] - part.depth[0]) * self.itemsize
