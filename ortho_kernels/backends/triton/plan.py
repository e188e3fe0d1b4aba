"""What each launch does, as rows of integers: the matrices, and the items that programs work on.

A plan depends on shapes, strides, dtypes, the configuration and the number of multiprocessors alone, and its order of
summation is fixed: the same input gives the same bits.

Pure data: nothing here needs triton or a GPU.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from .heuristics import Configuration
from .matrices import VECTOR_BYTES, Access, Layout, Matrix, SidedView, access_to, matrices_of
from .records import CombineItem, MatrixRow, PassItem, ProductItem, ResidualItem, UpdateItem

# Up to this order products and sums of a residual are in float64: so few entries don't average rounding errors out, and near
# orthogonality, where R is a difference of nearly equal numbers, those would show. The errors of larger orders would be in
# the diagonal, which always is in float64.
TINY_ORDER = 16
TINY_BLOCK_DEPTH = 8
SPREAD_ROWS = 64  # and columns of a residual that one item spreads
DENSE_ROWS = 16  # a dense residual has a multiple of them, and of columns: its rows begin at multiples of 32 bytes
NORM_ROWS = 64  # vectors whose squared lengths one item computes
COMBINED_ROWS = 64  # entries of a vector that one item sums up
MOST_PARTS = 128  # in which a pass over a matrix is summed up
PASSES_PER_MULTIPROCESSOR = 8  # items in which a pass over all matrices is cut, about: more would start more often
HELD_SHAPES = 4  # of tiles that a pass holds, each of half the rows of the one before and twice the columns
LEAST_PART_DEPTH = 1024  # the depth of a tile is not cut finer than this
# In which the tiles of residuals are cut, at least; and two for each program that runs at once.
ITEMS_PER_MULTIPROCESSOR = 4


class Kind(IntEnum):
    """The blocks of a residual."""

    TILE = 0  # a tile below the diagonal
    TINY = 1  # a whole residual of an order up to TINY_ORDER
    NORMS = 2  # the diagonal: squared lengths of vectors in float64, since tensor cores truncate long sums


Item = Any  # one of those of `records`
Items = dict[torch.dtype, list[Item]]  # one launch for each storage dtype: almost always one


def triangle(i: int) -> int:
    """Where row i of a packed lower triangle begins; also the number of entries of a triangle of order i."""
    return i * (i + 1) // 2


def dense_order(order: int) -> int:
    """The rows and columns of a dense residual, zeros included."""
    return -(-order // DENSE_ROWS) * DENSE_ROWS


def _blocks(length: int, block: int) -> range:
    """The beginnings of the blocks of a length; something of length zero has one block, with nothing in it."""
    return range(0, max(length, 1), block)


def _largest_first(found: Iterable[tuple[torch.dtype, int, Item]]) -> Items:
    """Items by dtype, in the order of the work that is given beside each."""
    items: dict[torch.dtype, list[tuple[int, Item]]] = defaultdict(list)
    for storage, work, item in found:
        items[storage].append((work, item))
    return {
        storage: [item for _, item in sorted(each, key=lambda pair: -pair[0])]  # stable
        for storage, each in items.items()
    }


@dataclass(frozen=True)
class ResidualItems:
    items: Items
    blocks_of: list[int]  # the number of blocks of each matrix
    partial_sums: int  # float64 numbers in which the parts of cut blocks are kept


def plan_residuals(matrices: Sequence[Matrix], configuration: Configuration, multiprocessors: int) -> ResidualItems:
    """The lower triangles of all residuals in blocks, largest first; deep blocks in parts."""
    work = sum(
        len(list(_lower_tiles(matrix.order, configuration.residual(matrix.storage).rows))) * matrix.depth
        for matrix in matrices
        if matrix.order > TINY_ORDER
    )
    together = max((configuration.residual(matrix.storage).programs for matrix in matrices), default=1)
    items = max(ITEMS_PER_MULTIPROCESSOR, 2 * together) * multiprocessors
    fair = max(LEAST_PART_DEPTH, math.ceil(work / items))
    found: list[tuple[torch.dtype, int, Item]] = []
    blocks_of: list[int] = []
    slot = 0
    for index, matrix in enumerate(matrices):
        tile = configuration.residual(matrix.storage)
        # For each kind, the float64 numbers that hold a block's sums, and its work for each entry of depth.
        size_and_work = {
            Kind.TILE: (tile.rows**2 // 2, tile.rows**2),
            Kind.TINY: (TINY_ORDER**2, 4 * TINY_ORDER**2),
            Kind.NORMS: (NORM_ROWS, 4 * NORM_ROWS),
        }
        part_depth = math.ceil(fair / tile.depth) * tile.depth
        begins = _blocks(matrix.depth, part_depth)
        blocks = list(_blocks_of(matrix.order, tile.rows))
        for block, (kind, row, column) in enumerate(blocks, start=sum(blocks_of)):
            size, weight = size_and_work[kind]
            for part, begin in enumerate(begins):
                end = min(matrix.depth, begin + part_depth)
                item = ResidualItem(index, kind, row, column, begin, end, part, len(begins), block, slot)
                found.append((matrix.storage, (end - begin) * weight, item))
            slot += size * len(begins) if len(begins) > 1 else 0
        blocks_of.append(len(blocks))
    return ResidualItems(_largest_first(found), blocks_of, slot)


def _blocks_of(order: int, side: int) -> Iterator[tuple[Kind, int, int]]:
    if order <= TINY_ORDER:
        yield Kind.TINY, 0, 0
        return
    yield from ((Kind.TILE, row, column) for row, column in _lower_tiles(order, side))
    yield from ((Kind.NORMS, row, row) for row in _blocks(order, NORM_ROWS))


def _lower_tiles(order: int, side: int) -> Iterator[tuple[int, int]]:
    for row in _blocks(order, side):
        yield from ((row, column) for column in range(0, row + 1, side))


@dataclass(frozen=True)
class Plan:
    """All that the launches over one list of weights need to know."""

    views: list[SidedView]
    matrices: list[Matrix]
    configuration: Configuration
    multiprocessors: int

    @classmethod
    def of(
        cls,
        weights: Sequence[Tensor],
        groups: Sequence[int],
        sides: Sequence[int],
        configuration: Configuration,
        multiprocessors: int,
    ) -> Plan:
        return cls(*matrices_of(weights, groups, sides), configuration, multiprocessors)

    @cached_property
    def access(self) -> dict[torch.dtype, Access]:
        return access_to(self.matrices, [matrix.view for matrix in self.matrices])

    @cached_property
    def residuals(self) -> ResidualItems:
        return plan_residuals(self.matrices, self.configuration, self.multiprocessors)

    def products(self, wanted: Sequence[int], precision: int) -> Items:
        """The gradients R W of the weights that are wanted, in tiles, largest sums first."""
        return _largest_first(
            (matrix.storage, matrix.order, ProductItem(index, row, column))
            for index, matrix in self._wanted(wanted)
            for tile in [self.configuration.product(matrix.storage, precision)]
            for row in _blocks(matrix.order, tile.rows)
            for column in _blocks(matrix.depth, tile.columns)
        )

    def spreads(self, wanted: Sequence[int]) -> Items:
        """The tiles of the lower triangles of R that are spread to dense matrices, for the products."""
        return _largest_first(
            (matrix.storage, 1, ProductItem(index, row, column))
            for index, matrix in self._wanted(wanted)
            for row, column in _lower_tiles(matrix.order, SPREAD_ROWS)
        )

    def passes(self) -> Items:
        """Passes over all matrices, one for each application of R."""
        return _largest_first(
            (matrix.storage, (end - begin) * matrix.order, PassItem(index, begin, end, part, self._pass_shape(matrix)))
            for index, matrix in enumerate(self.matrices)
            for part, begin in enumerate(self._pass_parts(matrix))
            for end in [min(matrix.depth, begin + self._pass_parts(matrix).step)]
        )

    def combines(self) -> Items:
        """The sums of what the passes bring."""
        return _largest_first(
            (matrix.storage, len(self._pass_parts(matrix)), CombineItem(index, row))
            for index, matrix in enumerate(self.matrices)
            for row in _blocks(matrix.order, COMBINED_ROWS)
        )

    def updates(self, wanted: Sequence[int]) -> Items:
        """The gradients of SRIP for the weights that are wanted, in blocks of their depth."""
        return _largest_first(
            (matrix.storage, matrix.order, UpdateItem(index, begin))
            for index, matrix in self._wanted(wanted)
            for begin in _blocks(matrix.depth, self.configuration.update.columns)
        )

    def _wanted(self, wanted: Sequence[int]) -> Iterator[tuple[int, Matrix]]:
        for index, matrix in enumerate(self.matrices):
            if wanted[matrix.weight] and matrix.order and matrix.depth:
                yield index, matrix

    @cached_property
    def total_dense(self) -> int:
        """Entries of all dense residuals."""
        return sum(dense_order(matrix.order) ** 2 for matrix in self.matrices)

    def _pass_parts(self, matrix: Matrix) -> range:
        """Where the parts begin in which a pass over this matrix is summed up, each a number of whole tiles."""
        shape = self._pass_shape(matrix)
        width = self.configuration.passes.columns << (shape if shape < HELD_SHAPES else 1)
        depth = max(self._fair_pass // max(matrix.order, 1), math.ceil(matrix.depth / MOST_PARTS), 1)
        return _blocks(matrix.depth, width * math.ceil(depth / width))

    @cached_property
    def _fair_pass(self) -> int:
        """Entries of an item, if all had as many."""
        entries = sum(matrix.order * matrix.depth for matrix in self.matrices)
        return entries // (PASSES_PER_MULTIPROCESSOR * self.multiprocessors)

    def _pass_shape(self, matrix: Matrix) -> int:
        """The number of the tile with the least rows that hold this order; `HELD_SHAPES` where none does."""
        if matrix.view.layout == Layout.STRIDED:
            return HELD_SHAPES
        tile, narrowest = self.configuration.passes, VECTOR_BYTES // matrix.storage.itemsize
        fitting = [
            shape
            for shape in range(HELD_SHAPES)
            if matrix.order <= tile.rows >> shape and narrowest <= tile.columns << shape
        ]
        return fitting[-1] if fitting else HELD_SHAPES

    @cached_property
    def residual_blocks(self) -> int:
        return sum(self.residuals.blocks_of)

    @cached_property
    def total_order(self) -> int:
        return sum(matrix.order for matrix in self.matrices)

    @cached_property
    def total_triangle(self) -> int:
        return sum(triangle(matrix.order) for matrix in self.matrices)

    @cached_property
    def rows(self) -> list[MatrixRow]:
        orders = [matrix.order for matrix in self.matrices]
        parts = [len(self._pass_parts(matrix)) for matrix in self.matrices]
        squares = [len(_blocks(order, COMBINED_ROWS)) for order in orders]
        blocks = self.residuals.blocks_of
        residual_offsets, vector_offsets = _offsets(map(triangle, orders)), _offsets(orders)
        dense_offsets = _offsets(dense_order(order) ** 2 for order in orders)
        sums_offsets = _offsets(order * count for order, count in zip(orders, parts, strict=True))
        first_blocks, first_squares = _offsets(blocks), _offsets(squares)
        return [
            MatrixRow(
                matrix.weight, *matrix.view, matrix.order, matrix.depth, residual_offset=residual_offsets[m],
                dense_offset=dense_offsets[m],
                vector_offset=vector_offsets[m], entry_order=self.entry_orders[1][m], first_block=first_blocks[m],
                blocks=blocks[m], sums_offset=sums_offsets[m], parts=parts[m], first_square=first_squares[m],
                squares=squares[m],
            )
            for m, matrix in enumerate(self.matrices)
        ]  # fmt: skip

    @cached_property
    def entry_orders(self) -> tuple[list[int], list[int]]:
        """All entry orders, one after the other, and where that of each matrix begins: -1 where it has none."""
        table: list[int] = []
        begins = []
        at: dict[tuple[int, ...], int] = {}
        for order in (matrix.entry_order for matrix in self.matrices):
            if order is not None and order not in at:
                at[order] = len(table)
                table += order
            begins.append(-1 if order is None else at[order])
        return table, begins

    @cached_property
    def sums(self) -> int:
        """float64 numbers in which the parts of one pass are kept."""
        return sum(row.order * row.parts for row in self.rows)

    @cached_property
    def squares(self) -> int:
        """Parts in which the squares of one vector of each matrix are kept."""
        return sum(row.squares for row in self.rows)


def _offsets(sizes: Iterable[int]) -> list[int]:
    """Where each begins."""
    return list(accumulate(sizes, initial=0))[:-1]
