"""What a rank computes, receives and holds, counted from the partition: no process is started, and no weight is made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ortho_kernels.distributed.assignment import matrix_cost, power_cost
from ortho_kernels.distributed.replicated.owned import Owned
from ortho_kernels.distributed.sharded.double_product import ENTRIES_ON_CPU
from ortho_kernels.distributed.sharded.layout import Layout, block_of, chunk
from ortho_kernels.distributed.sharded.partition import Partition
from ortho_kernels.distributed.sharded.pieces import Matrix, matrices_of
from ortho_kernels.options import SO, SRIP
from ortho_kernels.weight_views import gradient_slots, triangle, weight_views

from ..model_shapes import Shapes

ENTRY = 4  # bytes: float32
DOUBLE = 8  # of SRIP's vectors
BLOCK = (ENTRY + DOUBLE) * ENTRIES_ON_CPU  # of pieces while they are multiplied: side by side, and in float64
KINDS: dict[str, Any] = {"so": SO(), "srip": SRIP()}
LAYOUTS = SHARED, FSDP2, TENSOR_PARALLEL = "DDP, `share=`", "FSDP2", "tensor parallel"


VECTORS = 12  # of SRIP's iteration that a backend holds at once: start vectors, and those that the gradient needs


class Counts(NamedTuple):
    """Of one value with its gradients.

    Attributes:
        products: multiply-adds of each rank.
        received: bytes, by all ranks together: all-to-all what crosses, an all-reduce of N bytes 2 (P - 1) N (a ring).
        memory: bytes that each rank allocates at most, beyond weights and gradients.
        waiting: multiply-adds one after the other, where ranks wait for each other after each round.
    """

    products: list[float]
    received: int
    memory: list[int]
    waiting: float

    def share(self, shapes: Shapes, kind: str) -> float:
        """The products of the rank with most of them, relative to one process."""
        return max(self.products) / one_process(shapes, kind)

    def time(self, shapes: Shapes, kind: str) -> float:
        """Likewise, with what it waits for others."""
        return self.waiting / one_process(shapes, kind)

    def moved(self, shapes: Shapes) -> float:
        """The bytes relative to gathering every weight on every rank; 0 on one rank."""
        ranks = len(self.products)
        return self.received / ((ranks - 1) * weight_bytes(shapes)) if ranks > 1 else 0.0


def sharded_dims(shapes: Shapes, layout: str) -> list[int]:
    """On which of its dimensions each weight is sharded.

    FSDP2 shards the first of all. Tensor parallelism takes turns after the first weight, that of a stem: a layer is cut by
    its outputs, and the next by its inputs, as the two layers of an MLP are (Megatron).
    """
    if layout == FSDP2:
        return [0] * len(shapes)
    return [0, *(index % 2 for index in range(len(shapes) - 1))]


def sharded_layout(shape: Sequence[int], dim: int, ranks: int) -> Layout:
    """Of a weight that is sharded on a dimension over so many ranks."""
    blocks = []
    for rank in range(ranks):
        intervals = [(0, size) for size in shape]
        intervals[dim] = chunk(shape[dim], ranks, rank)
        blocks.append(block_of(intervals, shape))
    return Layout(None, (0,), (1, shape[0], math.prod(shape[1:])), tuple(blocks))


def sharded_matrices(shapes: Shapes, dims: Sequence[int], ranks: int) -> list[Matrix]:
    """Seen from their small sides."""
    found = []
    for index, (shape, dim) in enumerate(zip(shapes, dims, strict=True)):
        by_rows = shape[0] <= math.prod(shape[1:])
        found += matrices_of(index, sharded_layout(shape, dim, ranks), 1, by_rows)
    return found


def count(shapes: Shapes, layout: str, kind: str, ranks: int) -> Counts:
    """Of weights in one of `LAYOUTS`."""
    if layout == SHARED:
        return _count_shared(shapes, kind, ranks)
    matrices = sharded_matrices(shapes, sharded_dims(shapes, layout), ranks)
    return (_count_so if kind == "so" else _count_srip)(matrices, ranks)


def _count_so(matrices: Sequence[Matrix], ranks: int) -> Counts:
    partition = Partition(matrices, ENTRY, ranks, can_cut=True, with_gradient=True)
    received = partition.exchanged_bytes() + partition.summed_bytes(ENTRY) + values_bytes(len(matrices), ranks)
    return Counts(partition.loads(), received, partition.memory(ENTRY), partition.waiting())


def _count_srip(matrices: Sequence[Matrix], ranks: int) -> Counts:
    """Each pass is an all-reduce: of W^T x, or of W (W^T x) where the matrix is cut along its depth, and of |x|^2.

    The last one of `iterations + pairs` needs W^T x alone. Of each pass two vectors of the order and one of the depth stay,
    and a pass takes as much twice again while it runs. Pieces are multiplied in blocks.
    """
    iterations, pairs = KINDS["srip"].iterations, KINDS["srip"].pairs
    products, largest = [0.0] * ranks, [0] * ranks
    for matrix in matrices:
        for piece in matrix.pieces:
            entries = (piece.rows[1] - piece.rows[0]) * (piece.cols[1] - piece.cols[0])
            if matrix.is_whole:
                products[piece.rank] += power_cost(matrix.order, matrix.depth, iterations, pairs)
            else:
                products[piece.rank] += (2 * (iterations + pairs - 1) + 1 + 2 * pairs) * entries
                largest[piece.rank] = max(largest[piece.rank], BLOCK, ENTRY * entries)
    cut = [matrix for matrix in matrices if not matrix.is_whole]
    whole = [matrix for matrix in matrices if matrix.is_whole]
    orders = sum(matrix.order for matrix in cut if matrix.is_cut_along_depth)
    depths = sum(matrix.depth for matrix in cut if not matrix.is_cut_along_depth)
    passes = iterations + pairs
    reduced = ENTRY * (passes * (depths + len(cut)) + (passes - 1) * orders)
    vectors = DOUBLE * (passes + 2) * sum(2 * matrix.order + matrix.depth for matrix in cut)
    vectors += ENTRY * VECTORS * sum(matrix.order for matrix in whole)
    received = 2 * (ranks - 1) * reduced + values_bytes(len(whole), ranks)
    return Counts(products, received, [vectors + own for own in largest], max(products))


def _count_shared(shapes: Shapes, kind: str, ranks: int) -> Counts:
    """In `accumulate_gradients`: one all-reduce of all values and gradients, in a buffer of their size."""
    weights = [torch.empty(shape) for shape in shapes]  # of which nothing is touched
    views = weight_views(weights, [1] * len(weights))
    owned = [Owned(weights, views, KINDS[kind], rank, ranks) for rank in range(ranks)]
    buffer = gradient_slots([torch.empty(len(shapes)), *weights]).nbytes
    orders = [own.views.orders("small") for own in owned]
    kept = [sum(triangle(n) if kind == "so" else VECTORS * n for n in own) for own in orders]
    received = 2 * (ranks - 1) * buffer
    costs = owned[0].costs
    return Counts(costs, received, [buffer + ENTRY * entries for entries in kept], max(costs))


def one_process(shapes: Shapes, kind: str) -> float:
    """The multiply-adds of one process with all weights."""
    sizes = [(shape[0], math.prod(shape[1:])) for shape in shapes]
    return sum(matrix_cost(KINDS[kind], min(size), max(size)) for size in sizes)


def weight_bytes(shapes: Shapes) -> int:
    return ENTRY * sum(map(math.prod, shapes))


def values_bytes(matrices: int, ranks: int) -> int:
    """Of the all-reduce through which all ranks get all values."""
    return 2 * (ranks - 1) * gradient_slots([torch.empty(matrices)]).nbytes
