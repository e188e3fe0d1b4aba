"""Which block of a sharded weight each rank holds: pure data, known to all ranks without a word between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import torch.distributed as dist

Interval = tuple[int, int]  # from the first to before the last


class Block(NamedTuple):
    """The part of a batch of matrices that one rank holds; a plain weight is a batch of one."""

    batch: Interval
    rows: Interval
    cols: Interval


@dataclass(frozen=True)
class Layout:
    """How the ranks of a group hold a weight.

    Attributes:
        mesh: the mesh of the weight's ranks.
        dims: the dimensions of the mesh over which the weight is sharded; over the others it is replicated.
        sizes: of the batch, the rows and the columns.
        blocks: one for each rank of the group; one of the whole weight where it is replicated alone.
    """

    mesh: Any
    dims: tuple[int, ...]
    sizes: tuple[int, int, int]
    blocks: tuple[Block, ...]

    @property
    def key(self) -> tuple[Any, tuple[int, ...]]:
        """Equal for weights of one group."""
        return self.mesh, self.dims

    def group(self, mesh: Any) -> Any:
        """The process group over whose ranks the weight is sharded, from the mesh of a weight at hand."""
        return _group(mesh, self.dims)


@lru_cache(maxsize=4096)
def layout_of(
    mesh: Any, placements: tuple[Any, ...], shape: tuple[int, ...], batch_dims: int = 0, transposed: bool = False
) -> Layout:
    """The layout of a `DTensor` of this shape, whose leading `batch_dims` count matrices, (in, out) if `transposed`.

    Raises:
        ValueError: for placements that are not known here, worded to follow the weight's name.
    """
    dims = tuple(dim for dim, placement in enumerate(placements) if not placement.is_replicate())
    sharded = {dim: _sharded_dim(placements[dim], len(shape), placements) for dim in dims}
    ranks = _ranks(mesh, dims)
    blocks = []
    for coordinates in _coordinates(mesh, dims, ranks):
        intervals = [
            _interval(size, [(mesh.shape[d], coordinates[d]) for d in _order(placements, sharded, dim)])
            for dim, size in enumerate(shape)
        ]
        blocks.append(block_of(intervals, shape, batch_dims, transposed))
    whole = block_of([(0, size) for size in shape], shape, batch_dims, transposed)
    sizes = (whole.batch[1], whole.rows[1], whole.cols[1])
    return Layout(mesh, dims, sizes, tuple(blocks) or (whole,))


def block_of(
    intervals: Sequence[Interval], shape: Sequence[int], batch_dims: int = 0, transposed: bool = False
) -> Block:
    """The block of a part of a tensor, given in its own dimensions.

    Raises:
        ValueError: where the part's columns, or its matrices, do not follow each other.
    """
    dims = list(range(len(shape)))
    if transposed:
        dims[-2:] = dims[:-3:-1]
    batch, rows, cols = dims[:batch_dims], dims[batch_dims], dims[batch_dims + 1 :]
    return Block(_folded(intervals, shape, batch), intervals[rows], _folded(intervals, shape, cols))


def chunk(size: int, count: int, index: int) -> Interval:
    """What `torch.chunk` gives, and DTensor after it: chunks of one size, of which the last may be shorter or empty."""
    step = -(-size // count)
    return min(index * step, size), min((index + 1) * step, size)


def _folded(intervals: Sequence[Interval], shape: Sequence[int], dims: Sequence[int]) -> Interval:
    """The interval of these dimensions as one, slowest first."""
    if not dims:
        return 0, 1
    first, *inner = dims
    for dim in inner:
        if intervals[dim] != (0, shape[dim]):
            raise ValueError(
                f"is sharded on dimension {dim} of its shape {tuple(shape)}, where the parts are no blocks of its matrices; "
                "shard it on its rows or its first dimension of columns, or `exclude` it"
            )
    step = math.prod(shape[dim] for dim in inner)
    begin, end = intervals[first]
    return begin * step, end * step


def _interval(size: int, chunks: Sequence[tuple[int, int]]) -> Interval:
    begin, end = 0, size
    for count, index in chunks:
        first, last = chunk(end - begin, count, index)
        begin, end = begin + first, begin + last
    return begin, end


def _sharded_dim(placement: Any, dimensions: int, placements: tuple[Any, ...]) -> int:
    dim = getattr(placement, "dim", None)
    if placement.is_partial() or dim is None:
        raise ValueError(
            f"has the placements {placements}, and holds partial sums; redistribute it to Shard or Replicate first"
        )
    return dim % dimensions


def _order(placements: tuple[Any, ...], sharded: dict[int, int], dim: int) -> list[int]:
    """The dimensions of the mesh that shard this dimension of the tensor, in the order in which they cut it.

    FSDP2 cuts what tensor parallelism has cut before, though its dimension of the mesh comes first: `_StridedShard`.
    """
    own = [mesh_dim for mesh_dim, tensor_dim in sharded.items() if tensor_dim == dim]
    return sorted(own, key=lambda mesh_dim: type(placements[mesh_dim]).__name__ == "_StridedShard")


def _ranks(mesh: Any, dims: tuple[int, ...]) -> list[int]:
    """The global ranks over which the weight is sharded, in the order of their group."""
    if mesh.get_coordinate() is None:
        raise ValueError(f"is on {mesh}, of which rank {dist.get_rank()} is no part; `exclude` it there")
    if not dims:
        return []
    return dist.get_process_group_ranks(_group(mesh, dims))


def _group(mesh: Any, dims: tuple[int, ...]) -> Any:
    """The process group over these dimensions of a mesh; of several, made once, by all ranks of the mesh's root."""
    if len(dims) == 1:
        return mesh.get_group(dims[0])
    if len(dims) == mesh.ndim and mesh.size() == dist.get_world_size():
        return dist.group.WORLD
    if not mesh.mesh_dim_names:
        raise ValueError(
            f"is sharded over {len(dims)} dimensions of {mesh}, which have no names to make a group of their ranks by; give "
            "mesh_dim_names to init_device_mesh"
        )
    return mesh[tuple(mesh.mesh_dim_names[dim] for dim in dims)]._flatten().get_group()


def _coordinates(mesh: Any, dims: tuple[int, ...], ranks: Sequence[int]) -> list[tuple[int, ...]]:
    """Where each of these ranks stands in the mesh."""
    if not ranks:
        return []
    table = mesh.mesh.tolist()
    own = mesh.get_coordinate()
    places = {}
    for coordinates in product(*[range(size) if d in dims else (own[d],) for d, size in enumerate(mesh.shape)]):
        rank: Any = table
        for index in coordinates:
            rank = rank[index]
        places[rank] = coordinates
    return [places[rank] for rank in ranks]
