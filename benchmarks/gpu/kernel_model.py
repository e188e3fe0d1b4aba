"""What the GPU kernels' plan implies on a card: arithmetic, traffic, waves, and time by the roofline. No measurement.

Every figure comes from the planner that the kernels themselves use (`ortho_kernels._introspect.cuda`). The assumptions:

- A launch takes as long as what binds it: the arithmetic of its fullest multiprocessor, the memory, or L2. All run at their
  full rate (see `cards.py`) and overlap perfectly, so times are lower bounds, for ours as for the eager loop.
- Block b of B takes the items b, b + B, ..., and the blocks of one wave move along together. What a wave reads twice comes
  from L2 the second time; what a later wave reads again does so too if the matrix takes no more than half of L2.
- A launch costs 3 us beside its work, a barrier over the whole grid 1.5 us.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ortho_kernels import _introspect  # type: ignore[attr-defined]

from .cards import Card

LAUNCH_SECONDS, BARRIER_SECONDS = 3e-6, 1.5e-6
ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Units and products of one multiply-add. At full precision a float32 weight is three bfloat16 parts, of which
# six products are formed; in the backward of 16-bit weights R is two parts, a float16 weight too.
FORWARD = {"float32": ("bfloat16", 6), "bfloat16": ("bfloat16", 1), "float16": ("bfloat16", 1)}
BACKWARD = {"highest": ("bfloat16", 6), "high": ("tf32", 1), "medium": ("bfloat16", 1)}
BACKWARD_16_BIT = {"bfloat16": ("bfloat16", 2), "float16": ("bfloat16", 3)}
FP64 = ("float64", 1)  # small orders, where few entries average rounding errors out
SMALL_ORDER = 64  # of residuals that are computed in double
# SRIP's sums: in double where it has a quarter of float's rate, else in two floats, of 11 operations a multiply-add.
FAST_DOUBLE, TWO_FLOAT_OPERATIONS = 0.25, 11

planner = _introspect.cuda
TILE = planner.tile_side


@dataclass(frozen=True)
class Matrix:
    """A matrix view as kernels see it: the small dimension, the large one, the storage format."""

    order: int
    depth: int
    dtype: str = "float32"

    @property
    def bytes(self) -> int:
        return self.order * self.depth * ITEM_BYTES[self.dtype]

    @property
    def residual_bytes(self) -> int:
        return 4 * (self.order * (self.order + 1) // 2)

    def planned(self) -> tuple[int, int, str]:
        return self.order, self.depth, self.dtype


def matrices(shapes: Sequence[tuple[int, ...]], dtype: str = "float32") -> list[Matrix]:
    """The small side of each weight of these shapes."""
    views = [(shape[0], int(np.prod(shape[1:]))) for shape in shapes]
    return [Matrix(min(view), max(view), dtype) for view in views]


@dataclass
class Launch:
    """One kernel launch. `work` is each item's operations by unit, in the order in which blocks take them."""

    blocks: int
    work: dict[str, np.ndarray]
    bytes: int  # of memory, read or written
    l2_bytes: int  # through L2
    barriers: int = 0
    passes: int = 1  # over all items, with a barrier in between

    @property
    def items(self) -> int:
        return len(next(iter(self.work.values())))

    @property
    def flops(self) -> dict[str, float]:
        """Executed operations by unit, two a multiply-add."""
        return {unit: float(work.sum()) * self.passes for unit, work in self.work.items() if work.any()}

    @property
    def waves(self) -> float:
        return self.items / self.blocks

    @property
    def last_wave(self) -> float:
        """The share of blocks that have an item in the last wave."""
        return ((self.items - 1) % self.blocks + 1) / self.blocks

    def arithmetic(self, card: Card) -> np.ndarray:
        """Seconds of arithmetic of each multiprocessor."""
        rates = {unit: card.rate(unit) / card.multiprocessors for unit in self.work}
        seconds = sum(self.passes * work / rates[unit] for unit, work in self.work.items())
        block = np.arange(self.items) % self.blocks
        return np.bincount(block % card.multiprocessors, seconds, minlength=card.multiprocessors)

    def balance(self, card: Card) -> float:
        """The arithmetic of all multiprocessors over what they could do while the fullest is at work."""
        seconds = self.arithmetic(card)
        return float(seconds.mean() / seconds.max())

    def times(self, card: Card) -> dict[str, float]:
        """Seconds by what may bind."""
        return {
            "arithmetic": float(self.arithmetic(card).max()),
            "memory": self.bytes / card.bandwidth,
            "L2": self.l2_bytes / card.l2_bandwidth,
        }

    def seconds(self, card: Card) -> float:
        return LAUNCH_SECONDS + BARRIER_SECONDS * self.barriers + max(self.times(card).values())


@dataclass
class Phase:
    """Forward or backward: its launches, and the bytes that no implementation does without."""

    name: str
    floor_bytes: int
    launches: list[Launch] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(launch.bytes for launch in self.launches)

    @property
    def flops(self) -> dict[str, float]:
        total: dict[str, float] = {}
        for launch in self.launches:
            for unit, flops in launch.flops.items():
                total[unit] = total.get(unit, 0) + flops
        return total

    def seconds(self, card: Card) -> float:
        return sum(launch.seconds(card) for launch in self.launches)

    def binds(self, card: Card) -> str:
        times: dict[str, float] = {"launching": 0.0}
        for launch in self.launches:
            own = launch.times(card)
            binding = max(own, key=lambda name: own[name])
            times[binding] = times.get(binding, 0) + own[binding]
            times["launching"] += launch.seconds(card) - own[binding]
        return max(times, key=lambda name: times[name])


def soft_orthogonality(weights: Sequence[Matrix], card: Card, precision: str = "highest") -> list[Phase]:
    planned, device = [matrix.planned() for matrix in weights], planner.Device(card.multiprocessors)
    W, R = sum(matrix.bytes for matrix in weights), sum(matrix.residual_bytes for matrix in weights)
    forward, backward = Phase("forward", W + R), Phase("backward", R + 2 * W)
    forward.launches = [_residuals(each, weights, card) for each in planner.plan_residuals(planned, device)]
    backward.launches = [_products(each, weights, card, precision) for each in planner.plan_products(planned, device)]
    return [forward, backward]


def srip(weights: Sequence[Matrix], card: Card, iterations: int = 2) -> list[Phase]:
    planned, device = [matrix.planned() for matrix in weights], planner.Device(card.multiprocessors)
    W = sum(matrix.bytes for matrix in weights)
    iterating = planner.plan_iterations(planned, iterations, True, device)
    updating = planner.plan_updates(planned, iterations)
    forward, backward = Phase("forward", iterating[0].steps * W), Phase("backward", 2 * W)
    forward.launches = [_iterations(each, weights, card) for each in iterating]
    backward.launches = [_updates(each, weights, iterations) for each in updating]
    return [forward, backward]


def _residuals(launch, weights: Sequence[Matrix], card: Card) -> Launch:
    # Sums of parts are read soon after they were written: from L2, if those of a wave fit there.
    cut_items = sum(each.tiles * each.parts for each in launch.work if each.parts > 1)
    of_a_wave = launch.partial_bytes * min(1, launch.blocks / max(cut_items, 1))
    work, l2 = _Work(), 2 * launch.partial_bytes
    total = launch.partial_bytes * (1 if of_a_wave <= card.l2_bytes // 2 else 2)
    for each in launch.work:
        matrix = weights[each.matrix]
        unit, products = FP64 if matrix.order <= SMALL_ORDER else FORWARD[matrix.dtype]
        row, column = np.tril_indices(-(-matrix.order // TILE))
        depth = np.full(each.parts, each.part_depth)
        depth[-1] = matrix.depth - each.part_depth * (each.parts - 1)
        padded = _padded(depth, planner.chunk_bytes // ITEM_BYTES[matrix.dtype])
        high, wide = _length(row, matrix.order), _length(column, matrix.order)
        work.add(unit, np.outer(_entries(high, wide, row == column), 2 * products * padded).ravel())
        vectors = high + np.where(row == column, 0, wide)
        l2 += int(vectors.sum()) * matrix.depth * ITEM_BYTES[matrix.dtype] + matrix.residual_bytes
        if matrix.bytes <= card.l2_bytes // 2:
            read = matrix.bytes
        else:
            part = np.tile(np.arange(each.parts), len(row))
            wave = (each.first_item + np.arange(len(part))) // launch.blocks
            panels = [(wave, np.repeat(tile, each.parts) * each.parts + part) for tile in (row, column)]
            read = _distinct(*panels) * TILE * each.part_depth * ITEM_BYTES[matrix.dtype]
        total += read + matrix.residual_bytes
    return Launch(launch.blocks, work.by_unit(), total, l2)


def _products(launch, weights: Sequence[Matrix], card: Card, precision: str) -> Launch:
    work, total, l2 = _Work(), 0, 0
    for each in launch.work:
        matrix = weights[each.matrix]
        unit, products = BACKWARD[precision] if matrix.dtype == "float32" else BACKWARD_16_BIT[matrix.dtype]
        column, row = (index.ravel() for index in np.indices((each.column_tiles, each.row_tiles)))
        padded = _padded(matrix.order, planner.chunk_bytes // ITEM_BYTES["float32"])
        entries = _entries(_length(row, matrix.order), _length(column, matrix.depth))
        work.add(unit, 2 * products * entries * padded)
        size = ITEM_BYTES[matrix.dtype]
        symmetric = 4 * matrix.order * matrix.order  # each entry of the triangle is used as two
        l2 += each.column_tiles * symmetric + each.row_tiles * matrix.bytes + matrix.bytes
        if matrix.bytes + matrix.residual_bytes <= card.l2_bytes // 2:
            read = matrix.bytes + matrix.residual_bytes
        else:
            wave = (each.first_item + np.arange(len(row))) // launch.blocks
            read = (
                _distinct((wave, row)) * TILE * matrix.order * 4
                + _distinct((wave, column)) * TILE * matrix.order * size
            )
        total += read + matrix.bytes
    return Launch(launch.blocks, work.by_unit(), total, l2)


def _strips(each, matrix: Matrix) -> np.ndarray:
    """The entries of each strip of its depth."""
    return np.diff(np.append(np.arange(0, matrix.depth, each.strip), matrix.depth))


def _iterations(launch, weights: Sequence[Matrix], card: Card) -> Launch:
    W = sum(weights[each.matrix].bytes for each in launch.work)
    strips = np.concatenate(
        [4 * weights[each.matrix].order * _strips(each, weights[each.matrix]) for each in launch.work]
    )
    # One item a block: its share of all strips.
    shares = np.array([part.sum() for part in np.array_split(strips, launch.blocks)])
    read = W if card.l2_bytes // 2 >= W else launch.steps * W
    through = launch.steps * (W + 2 * launch.partial_bytes)
    fast_double = card.peak["float64"] >= FAST_DOUBLE * card.peak["float32"]
    unit, factor = ("float64", 1) if fast_double else ("float32", TWO_FLOAT_OPERATIONS / 2)
    return Launch(launch.blocks, {unit: factor * shares}, read, through, 2 * launch.steps, launch.steps)


def _updates(launch, weights: Sequence[Matrix], pairs: int) -> Launch:
    W = sum(weights[each.matrix].bytes for each in launch.work)
    work = [8 * pairs * weights[each.matrix].order * _strips(each, weights[each.matrix]) for each in launch.work]
    return Launch(launch.items, {"float32": np.concatenate(work)}, 2 * W, 2 * W)


class _Work:
    """Operations of items one after the other, by unit."""

    def __init__(self) -> None:
        self.items: list[tuple[str, np.ndarray]] = []

    def add(self, unit: str, operations: np.ndarray) -> None:
        self.items.append((unit, operations))

    def by_unit(self) -> dict[str, np.ndarray]:
        units = dict.fromkeys(unit for unit, _ in self.items)
        return {
            unit: np.concatenate([work if own == unit else np.zeros_like(work) for own, work in self.items])
            for unit in units
        }


def _padded(length, step: int):
    return -(-length // step) * step


def _length(tile: np.ndarray, order: int) -> np.ndarray:
    return np.minimum(TILE, order - TILE * tile)


def _entries(high: np.ndarray, wide: np.ndarray, on_diagonal: np.ndarray | bool = False) -> np.ndarray:
    """Entries that a tile's four warps compute, 32 x 32 each: none of those beyond the matrix or above its diagonal."""
    warp = TILE // 2
    rows, columns = -(-high // warp), -(-wide // warp)
    idle = np.logical_and(on_diagonal, columns == 2).astype(int)
    return warp * warp * (rows * columns - idle)


def _distinct(*pairs: tuple[np.ndarray, np.ndarray]) -> int:
    """The number of different (wave, panel) pairs."""
    keys = [wave * (1 << 32) + panel for wave, panel in pairs]
    return len(np.unique(np.concatenate(keys)))
