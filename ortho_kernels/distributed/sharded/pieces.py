"""The matrices of a sharded weight, and the piece of each that a rank holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from .layout import Interval, Layout


class Piece(NamedTuple):
    """The part of one matrix that one rank holds.

    Attributes:
        rank: in the group.
        rows, cols: of the matrix.
        batch, first_row: where it begins in what the rank holds, `(batch, rows, cols)`. It has all columns of that.
    """

    rank: int
    rows: Interval
    cols: Interval
    batch: int
    first_row: int

    def of(self, local: Tensor) -> Tensor:
        """The piece, out of what its rank holds of the weight or of a gradient."""
        return local[self.batch, self.first_row : self.first_row + self.rows[1] - self.rows[0]]


class Matrix(NamedTuple):
    """One matrix of a list of weights, seen from one side.

    Attributes:
        weight: the place of its weight in the list.
        rows, cols: its size.
        by_rows: whether its Gram is that of its rows; the order is then the number of rows, and columns make the depth.
        pieces: those that are not empty, by rank.
    """

    weight: int
    rows: int
    cols: int
    by_rows: bool
    pieces: tuple[Piece, ...]

    @property
    def order(self) -> int:
        return self.rows if self.by_rows else self.cols

    @property
    def depth(self) -> int:
        return self.cols if self.by_rows else self.rows

    def order_of(self, piece: Piece) -> Interval:
        return piece.rows if self.by_rows else piece.cols

    def depth_of(self, piece: Piece) -> Interval:
        return piece.cols if self.by_rows else piece.rows

    @property
    def is_cut_along_depth(self) -> bool:
        """Whether each piece has all of the order: their Grams add up to the matrix's."""
        return all(self.order_of(piece) == (0, self.order) for piece in self.pieces)

    @property
    def is_whole(self) -> bool:
        """Whether one rank holds all of it."""
        return len(self.pieces) == 1

    def piece_of(self, rank: int) -> Piece | None:
        return next((piece for piece in self.pieces if piece.rank == rank), None)


def matrices_of(weight: int, layout: Layout, count: int, by_rows: bool) -> list[Matrix]:
    """The `count` matrices of a weight: those of its batch, each cut into equal blocks of rows."""
    batch, all_rows, cols = layout.sizes
    cuts = count // batch
    rows = all_rows // cuts
    found = []
    for index in range(batch):
        for cut in range(cuts):
            first = cut * rows
            pieces = []
            for rank, block in enumerate(layout.blocks):
                begin, end = max(block.rows[0], first), min(block.rows[1], first + rows)
                if block.batch[0] <= index < block.batch[1] and begin < end and block.cols[0] < block.cols[1]:
                    held = (begin - first, end - first), block.cols, index - block.batch[0], begin - block.rows[0]
                    pieces.append(Piece(rank, *held))
            found.append(Matrix(weight, rows, cols, by_rows, tuple(pieces)))
    return found


def overlap(one: Interval, other: Interval) -> Interval | None:
    begin, end = max(one[0], other[0]), min(one[1], other[1])
    return (begin, end) if begin < end else None


def total(intervals: Sequence[Interval]) -> int:
    return sum(end - begin for begin, end in intervals)
