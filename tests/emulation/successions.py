"""Lists of matrices in which an item of every kind follows one of every kind within a block.

Blocks take one item after the other and keep their shared memory: what an item still reads, the next may overwrite. Which
items meet in a block is the plan's to say, so lists are drawn until the plan says that all have met.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise, product
from random import Random
from typing import NamedTuple

import torch

from ortho_kernels import _introspect

planner = _introspect.cuda
LAYOUTS = ("along", "across", "unaligned", "unaligned across")
NAMES = {torch.float64: "float64", torch.float32: "float32", torch.bfloat16: "bfloat16"}


class Spec(NamedTuple):
    """What `cases.made` makes a matrix from."""

    order: int
    depth: int
    dtype: torch.dtype
    layout: str


class Kernel(NamedTuple):
    """`items`: the kind of each item of these matrices, in the order of the plan, and how many blocks take them.

    `turns`: whether every other round goes through the blocks in the opposite order.
    """

    specs: list[Spec]
    items: Callable[[list[Spec], int], tuple[list, int]]
    turns: bool = False
    never: Callable[[tuple, tuple], bool] = lambda before, after: False  # the plan rules it out


def _planned(specs: list[Spec]) -> list[tuple[int, int, str]]:
    return [(spec.order, spec.depth, NAMES[spec.dtype]) for spec in specs]


def residual_items(specs: list[Spec], multiprocessors: int) -> tuple[list, int]:
    """By arithmetic, by the layout of the matrix, and by whether its depth is cut."""
    (launch,) = planner.plan_residuals(_planned(specs), planner.Device(multiprocessors))
    result: list[tuple] = []
    for work in launch.work:
        arithmetic = "double" if work.in_double else "terms"
        layout = specs[work.matrix].layout
        result += [(arithmetic, layout, "cut" if work.parts > 1 else "whole")] * (work.tiles * work.parts)
    return result, launch.blocks


def product_items(specs: list[Spec], multiprocessors: int) -> tuple[list, int]:
    """By the layout of the matrix and by whether R is spread to planes."""
    (launch,) = planner.plan_products(_planned(specs), planner.Device(multiprocessors), precision=1)
    result: list[tuple] = []
    for work in launch.work:
        reads = "planes" if work.spread_tiles else "triangle"
        result += [(reads, specs[work.matrix].layout)] * (work.row_tiles * work.column_tiles)
    return result, launch.blocks


def spread_items(specs: list[Spec], multiprocessors: int) -> tuple[list, int]:
    """By whether the tile is on the diagonal."""
    (launch,) = planner.plan_products(_planned(specs), planner.Device(multiprocessors), precision=1)
    result: list[str] = []
    for work in launch.work:
        side = -(-specs[work.matrix].order // planner.spread_side) if work.spread_tiles else 0
        result += ["on" if column == row else "below" for row in range(side) for column in range(row + 1)]
    return result, launch.spread_blocks


def pass_items(specs: list[Spec], multiprocessors: int) -> tuple[list, int]:
    """Of a pass over W, by order and by the layout of the matrix."""
    (launch,) = planner.plan_iterations(_planned(specs), 2, True, planner.Device(multiprocessors))
    return [
        (specs[w.matrix].order, specs[w.matrix].layout) for w in launch.work for _ in range(w.ranges)
    ], launch.blocks


def row_items(specs: list[Spec], multiprocessors: int) -> tuple[list, int]:
    """Of a reduction, by order: up to 256 rows are one item."""
    (launch,) = planner.plan_iterations(_planned(specs), 2, True, planner.Device(multiprocessors))
    return [specs[w.matrix].order for w in launch.work], launch.blocks


def update_items(specs: list[Spec], multiprocessors: int) -> tuple[list, int]:
    """By the layout of the matrix."""
    (launch,) = planner.plan_updates(_planned(specs), 2, planner.Device(multiprocessors))
    return [specs[w.matrix].layout for w in launch.work for _ in range(w.strips)], launch.blocks


def met(kernel: Kernel, specs: list[Spec], multiprocessors: int) -> set[tuple]:
    """The kinds of items of which the second follows the first in a block."""
    items, blocks = kernel.items(specs, multiprocessors)
    rounds = [items[first : first + blocks] for first in range(0, len(items), blocks)]
    if kernel.turns:
        rounds = [[*[None] * (blocks - len(each)), *each[::-1]] if r % 2 else each for r, each in enumerate(rounds)]
    pairs = {pair for block in range(blocks) for pair in pairwise(each[block] for each in rounds if block < len(each))}
    return {pair for pair in pairs if None not in pair}


def kinds(kernel: Kernel) -> set[tuple]:
    """All that some lists of its matrices have."""
    random = Random(1)
    lists = (random.choices(kernel.specs, k=8) for _ in range(100))
    return {kind for specs in lists for kind in kernel.items(specs, 2)[0]}


def wanted(kernel: Kernel) -> set[tuple]:
    """All pairs of kinds, but those that the plan rules out."""
    return {pair for pair in product(kinds(kernel), repeat=2) if not kernel.never(*pair)}


def lists_of(kernel: Kernel, tries: int = 300) -> Iterator[tuple[list[Spec], int]]:
    """Lists and multiprocessors that together meet all wanted pairs: the best for its size of so many tries, again and
    again."""
    random, missing = Random(1), wanted(kernel)
    while missing:
        best, gain = None, 0.0
        for _ in range(tries):
            specs = random.choices(kernel.specs, k=random.randint(2, 12))
            multiprocessors = random.randint(1, 5)
            found = len(met(kernel, specs, multiprocessors) & missing)
            size = sum(spec.order * spec.depth for spec in specs)
            if found / size > gain:
                best, gain = (specs, multiprocessors), found / size
        if best is None:
            raise LookupError(f"never met: {sorted(map(str, missing))}")
        missing -= met(kernel, *best)
        yield best


def _specs(dtype: torch.dtype, shapes: list[tuple[int, int]], layouts: tuple[str, ...] = LAYOUTS[:2]) -> list[Spec]:
    return [Spec(order, depth, dtype, layout) for order, depth in shapes for layout in layouts]


def _residual_specs(dtype: torch.dtype) -> list[Spec]:
    chunk = planner.chunk_depth
    if dtype is torch.float64:
        return _specs(dtype, [(5, chunk), (5, 7 * chunk), (5, 9 * chunk)], LAYOUTS)
    small = _specs(
        dtype, [(5, chunk), (5, 6 * chunk)]
    )  # shorter than the parts of others, and longer, to come before them
    if dtype is torch.bfloat16:  # sums of parts don't depend on the storage format
        return _specs(dtype, [(65, 5 * chunk)], LAYOUTS) + small
    cut = _specs(dtype, [(65, 9 * chunk), (5, 12 * chunk)])
    return _specs(dtype, [(65, 5 * chunk), (65, 8 * chunk)], LAYOUTS) + cut + small


def _has_parts(before: tuple, after: tuple) -> bool:
    return "cut" in (before[2], after[2])


_passes = _specs(torch.float32, [(5, 40), (70, 20)])
KERNELS = {
    "residual, float64": Kernel(_residual_specs(torch.float64), residual_items, True),
    "residual, float32": Kernel(_residual_specs(torch.float32), residual_items, True),
    "residual, bfloat16": Kernel(_residual_specs(torch.bfloat16), residual_items, True, _has_parts),
    "product, float32": Kernel(_specs(torch.float32, [(20, 16), (66, 16), (65, 132)], LAYOUTS), product_items, True),
    "product, bfloat16": Kernel(_specs(torch.bfloat16, [(65, 136)], LAYOUTS), product_items, True),
    "product, spreading": Kernel(_specs(torch.float32, [(65, 129), (129, 130)], ("along",)), spread_items),
    "srip, passes": Kernel(_passes, pass_items),
    "srip, rows": Kernel(_passes, row_items),
    "srip, updates": Kernel(_specs(torch.float32, [(5, 40)]), update_items),
}
