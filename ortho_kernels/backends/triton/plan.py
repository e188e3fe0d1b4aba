"""What each launch does, as tables of integers: the matrices, and the items that programs work on.

A plan depends on shapes, strides, dtypes, the configuration and the number of multiprocessors alone, and its order of
summation is fixed: the same input gives the same bits. All of it is int64: offsets pass 2^31 in large models.

Pure data: nothing here needs triton or a GPU.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import torch

from .heuristics import Configuration
from .matrices import GradientLayout, Matrix

# Up to this order products and sums of a residual are in float64: so few entries don't average rounding errors out, and near
# orthogonality, where R is a difference of nearly equal numbers, those would show. The errors of larger orders would be in
# the diagonal, which always is in float64.
TINY_ORDER = 16
TINY_BLOCK_DEPTH = 8
NORM_ROWS = 64  # vectors whose squared lengths one item computes
COMBINED_ROWS = 256  # entries of a vector that one item sums up
MOST_PARTS = 64  # in which a pass over a matrix is summed up
LEAST_PART_DEPTH = 1024  # the depth of a tile is not cut finer than this
ITEMS_PER_MULTIPROCESSOR = 4  # in which the tiles of a residual are cut, at least
GRADIENT_ALIGNMENT = 256  # bytes; where the gradient of each weight begins


class Kind(IntEnum):
    """The items of a residual."""

    TILE = 0  # a tile below the diagonal
    TINY = 1  # a whole residual of an order up to TINY_ORDER
    NORMS = 2  # the diagonal: squared lengths of vectors in float64, since tensor cores truncate long sums


# The columns of the tables, in the order in which kernels find them.
MATRIX = (
    "weight", "offset", "order", "depth", "order_stride", "depth_stride", "residual_offset", "vector_offset",
    "gradient_offset", "gradient_order_stride", "gradient_depth_stride", "entry_order", "first_group", "groups",
    "sums_offset", "parts", "first_squares", "squares",
)  # fmt: skip
RESIDUAL_ITEM = ("matrix", "kind", "layout", "row", "column", "begin", "end", "part", "parts", "group", "slot")
PRODUCT_ITEM = ("matrix", "layout", "row", "column")
PASS_ITEM = ("matrix", "layout", "begin", "end", "part")
COMBINE_ITEM = ("matrix", "row")
UPDATE_ITEM = ("matrix", "layout", "begin")

Item = tuple[int, ...]
Items = dict[torch.dtype, list[Item]]  # one launch for each storage dtype: almost always one


def triangle(i: int) -> int:
    """Where row i of a packed lower triangle begins; also the number of entries of a triangle of order i."""
    return i * (i + 1) // 2


def _offsets(sizes: Iterable[int]) -> list[int]:
    """Where each begins, and the sum of all."""
    result = [0]
    for size in sizes:
        result.append(result[-1] + size)
    return result


def _blocks(length: int, block: int) -> range:
    """The beginnings of the blocks of a length; something of length zero has one block, with nothing in it."""
    return range(0, max(length, 1), block)


@dataclass(frozen=True)
class ResidualItems:
    items: Items
    groups_of: list[int]  # the number of tiles of each matrix
    partial_sums: int  # float64 numbers in which the parts of cut tiles are kept


def plan_residuals(matrices: Sequence[Matrix], configuration: Configuration, multiprocessors: int) -> ResidualItems:
    """The lower triangles of all residuals in tiles, largest first; deep tiles in parts."""
    work = sum(
        len(list(_lower_tiles(matrix.order, configuration.residual(matrix.storage).rows))) * matrix.depth
        for matrix in matrices
        if matrix.order > TINY_ORDER
    )
    fair = max(LEAST_PART_DEPTH, math.ceil(work / (ITEMS_PER_MULTIPROCESSOR * multiprocessors)))
    found: dict[torch.dtype, list[tuple[int, Item]]] = defaultdict(list)
    groups_of = []
    group = slot = 0
    for index, matrix in enumerate(matrices):
        tile = configuration.residual(matrix.storage)
        tiles = list(_tiles_of(matrix, tile.rows))
        groups_of.append(len(tiles))
        for kind, row, column in tiles:
            size, weight = _SIZE_AND_WORK[kind](tile.rows)
            part_depth = math.ceil(fair / tile.depth) * tile.depth
            parts = max(1, math.ceil(matrix.depth / part_depth))
            for part in range(parts):
                begin = part * part_depth
                end = min(matrix.depth, begin + part_depth)
                found[matrix.storage].append(
                    ((end - begin) * weight,
                     (index, kind, matrix.layout, row, column, begin, end, part, parts, group, slot))
                )  # fmt: skip
            slot += size * parts if parts > 1 else 0
            group += 1
    return ResidualItems(_largest_first(found), groups_of, slot)


# For each kind, given the side of a tile: the float64 numbers that hold its sums, and its work for each entry of depth.
_SIZE_AND_WORK: dict[Kind, Callable[[int], tuple[int, int]]] = {
    Kind.TILE: lambda side: (side * side // 2, side * side),
    Kind.TINY: lambda side: (TINY_ORDER * TINY_ORDER, 4 * TINY_ORDER * TINY_ORDER),
    Kind.NORMS: lambda side: (NORM_ROWS, 4 * NORM_ROWS),
}


def _tiles_of(matrix: Matrix, side: int) -> Iterable[tuple[Kind, int, int]]:
    if matrix.order <= TINY_ORDER:
        yield Kind.TINY, 0, 0
        return
    yield from ((Kind.TILE, row, column) for row, column in _lower_tiles(matrix.order, side))
    yield from ((Kind.NORMS, row, row) for row in _blocks(matrix.order, NORM_ROWS))


def _lower_tiles(order: int, side: int) -> Iterable[tuple[int, int]]:
    for row in _blocks(order, side):
        yield from ((row, column) for column in range(0, row + 1, side))


def plan_products(
    matrices: Sequence[Matrix], wanted: Sequence[bool], configuration: Configuration, precision: int
) -> Items:
    """The gradients R W of the weights that are wanted, in tiles, largest sums first."""
    found: dict[torch.dtype, list[tuple[int, Item]]] = defaultdict(list)
    for index, matrix in enumerate(matrices):
        if wanted[matrix.weight] and matrix.order and matrix.depth:
            tile = configuration.product(matrix.storage, precision)
            found[matrix.storage] += [
                (matrix.order, (index, matrix.gradient_layout, row, column))
                for row in _blocks(matrix.order, tile.rows)
                for column in _blocks(matrix.depth, tile.columns)
            ]
    return _largest_first(found)


@dataclass(frozen=True)
class PassItems:
    passes: Items
    combines: Items
    parts_of: list[int]  # in how many parts the passes over each matrix are summed up
    squares_of: list[int]  # in how many the squares of its vectors


def plan_passes(matrices: Sequence[Matrix], configuration: Configuration) -> PassItems:
    """Passes over all matrices, one for each application of R, and the sums of what they bring."""
    found: dict[torch.dtype, list[tuple[int, Item]]] = defaultdict(list)
    combines: dict[torch.dtype, list[tuple[int, Item]]] = defaultdict(list)
    parts_of, squares_of = [], []
    for index, matrix in enumerate(matrices):
        width = configuration.passes.columns
        length = width * max(1, math.ceil(matrix.depth / (width * MOST_PARTS)))
        begins = _blocks(matrix.depth, length)
        parts_of.append(len(begins))
        for part, begin in enumerate(begins):
            end = min(matrix.depth, begin + length)
            found[matrix.storage].append(((end - begin) * matrix.order, (index, matrix.layout, begin, end, part)))
        rows = _blocks(matrix.order, COMBINED_ROWS)
        squares_of.append(len(rows))
        combines[matrix.storage] += [(len(begins), (index, row)) for row in rows]
    return PassItems(_largest_first(found), _largest_first(combines), parts_of, squares_of)


def plan_updates(matrices: Sequence[Matrix], wanted: Sequence[bool], configuration: Configuration) -> Items:
    """The gradients of SRIP for the weights that are wanted, in blocks of their depth."""
    found: dict[torch.dtype, list[tuple[int, Item]]] = defaultdict(list)
    for index, matrix in enumerate(matrices):
        if wanted[matrix.weight] and matrix.order and matrix.depth:
            found[matrix.storage] += [
                (matrix.order, (index, matrix.gradient_layout, begin))
                for begin in _blocks(matrix.depth, configuration.update.columns)
            ]
    return _largest_first(found)


def _largest_first(found: dict[torch.dtype, list[tuple[int, Item]]]) -> Items:
    return {
        storage: [item for _, item in sorted(items, key=lambda each: -each[0])]  # stable
        for storage, items in found.items()
        if items
    }


@dataclass(frozen=True)
class Plan:
    """All that the launches over one list of weights need to know."""

    matrices: list[Matrix]
    gradients: list[GradientLayout]
    configuration: Configuration
    multiprocessors: int

    @cached_property
    def residuals(self) -> ResidualItems:
        return plan_residuals(self.matrices, self.configuration, self.multiprocessors)

    @cached_property
    def passes(self) -> PassItems:
        return plan_passes(self.matrices, self.configuration)

    def products(self, wanted: Sequence[bool], precision: int) -> Items:
        return plan_products(self.matrices, wanted, self.configuration, precision)

    def updates(self, wanted: Sequence[bool]) -> Items:
        return plan_updates(self.matrices, wanted, self.configuration)

    @cached_property
    def total_order(self) -> int:
        return sum(matrix.order for matrix in self.matrices)

    @cached_property
    def total_triangle(self) -> int:
        return sum(triangle(matrix.order) for matrix in self.matrices)

    @cached_property
    def widest_stride(self) -> int:
        return max(max(matrix.order_stride, matrix.depth_stride, *matrix.gradient_strides) for matrix in self.matrices)

    @cached_property
    def widest_order(self) -> int:
        return max(matrix.order for matrix in self.matrices)

    def cooperative_programs(self, items: int) -> int:
        """How many programs share these items where all must be running at once."""
        return min(items, self.multiprocessors * self.configuration.passes.programs_per_multiprocessor)

    def storages(self) -> list[torch.dtype]:
        return list(dict.fromkeys(matrix.storage for matrix in self.matrices))

    def gradient_places(self, wanted: Sequence[bool]) -> tuple[list[int], dict[torch.dtype, int]]:
        """Where the gradient of each weight begins in the buffer of its dtype, and the size of each buffer (elements)."""
        places, sizes = [], dict.fromkeys(self.storages(), 0)
        dtypes = {matrix.weight: matrix.storage for matrix in self.matrices}
        for index, gradient in enumerate(self.gradients):
            storage = dtypes[index]
            places.append(sizes[storage])
            if wanted[index]:
                step = GRADIENT_ALIGNMENT // storage.itemsize
                sizes[storage] += math.ceil(math.prod(gradient.shape) / step) * step
        return places, sizes

    def matrix_table(self, gradient_places: Sequence[int]) -> list[Item]:
        """One row of `MATRIX` for each matrix."""
        residuals = _offsets(triangle(matrix.order) for matrix in self.matrices)
        vectors = _offsets(matrix.order for matrix in self.matrices)
        groups = _offsets(self.residuals.groups_of)
        sums = _offsets(matrix.order * parts for matrix, parts in zip(self.matrices, self.passes.parts_of, strict=True))
        squares = _offsets(self.passes.squares_of)
        entry_orders = self._entry_orders[1]
        return [
            (matrix.weight, matrix.offset, matrix.order, matrix.depth, matrix.order_stride, matrix.depth_stride,
             residuals[m], vectors[m], gradient_places[matrix.weight] + matrix.gradient_offset,
             *matrix.gradient_strides, entry_orders[m], groups[m], self.residuals.groups_of[m],
             sums[m], self.passes.parts_of[m], squares[m], self.passes.squares_of[m])
            for m, matrix in enumerate(self.matrices)
        ]  # fmt: skip

    @cached_property
    def entry_order_table(self) -> list[int]:
        return self._entry_orders[0]

    @cached_property
    def _entry_orders(self) -> tuple[list[int], list[int]]:
        """All entry orders, one after the other, and where that of each matrix begins: -1 where it has none."""
        table: list[int] = []
        begins = []
        at: dict[tuple[int, ...], int] = {}
        for matrix in self.matrices:
            order = matrix.entry_order
            if order is not None and order not in at:
                at[order] = len(table)
                table += order
            begins.append(-1 if order is None else at[order])
        return table, begins

    @cached_property
    def pass_sums(self) -> int:
        """float64 numbers in which the parts of one pass are kept."""
        return sum(matrix.order * parts for matrix, parts in zip(self.matrices, self.passes.parts_of, strict=True))
