"""Lists of matrices in which an item of every kind follows one of every kind within a block.

Blocks take one item after the other and keep their shared memory: what an item still reads, the next may overwrite. Where
the plan shares the items out, it says which of them meet in a block. Where blocks take them from a counter, a block that
runs alone takes all of them, in order: so these lists are run. Lists are drawn until all kinds have met.
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
    """`items`: the kinds of the items of these matrices, one after the other, of each block."""

    specs: list[Spec]
    items: Callable[[list[Spec], int], list[list]]
    never: Callable[[tuple, tuple], bool] = lambda before, after: False  # the plan rules it out


def _planned(specs: list[Spec]) -> list[tuple[int, int, str, bool]]:
    return [(spec.order, spec.depth, NAMES[spec.dtype], "across" not in spec.layout) for spec in specs]


def _taken_by_one(items: list) -> list[list]:
    """From a counter, by a block that runs alone."""
    return [items]


def _in_turn(items: list, blocks: int) -> list[list]:
    """Block b of B takes the items b, b + B, ..."""
    return [items[block::blocks] for block in range(blocks)]


def residual_items(specs: list[Spec], multiprocessors: int) -> list[list]:
    """By arithmetic, by the layout of the matrix, and by whether its depth is cut."""
    (launch,) = planner.plan_residuals(_planned(specs), planner.Device(multiprocessors))
    result: list[tuple] = []
    for work in launch.work:
        arithmetic = "double" if work.in_double else "terms"
        layout = specs[work.matrix].layout
        result += [(arithmetic, layout, "cut" if work.parts > 1 else "whole")] * (work.tiles * work.parts)
    return _taken_by_one(result)


def product_items(specs: list[Spec], multiprocessors: int) -> list[list]:
    """By the layout of the matrix and by whether R is spread to planes."""
    (launch,) = planner.plan_products(_planned(specs), planner.Device(multiprocessors), precision=1)
    result: list[tuple] = []
    for work in launch.work:
        reads = "planes" if work.spread_tiles else "triangle"
        result += [(reads, specs[work.matrix].layout)] * (work.row_tiles * work.column_tiles)
    return _taken_by_one(result)


def spread_items(specs: list[Spec], multiprocessors: int) -> list[list]:
    """By whether the tile is on the diagonal."""
    (launch,) = planner.plan_products(_planned(specs), planner.Device(multiprocessors), precision=1)
    result: list[str] = []
    for work in launch.work:
        side = -(-specs[work.matrix].order // planner.spread_side) if work.spread_tiles else 0
        result += ["on" if column == row else "below" for row in range(side) for column in range(row + 1)]
    return _in_turn(result, launch.spread_blocks)


def pass_items(specs: list[Spec], multiprocessors: int) -> list[list]:
    """Of a pass over W, by order and by the layout of the matrix: a block's strips of a matrix are one item."""
    (launch,) = planner.plan_iterations(_planned(specs), 2, True, planner.Device(multiprocessors))
    result: list[list] = [[] for _ in range(launch.blocks)]
    for work in launch.work:
        spec = specs[work.matrix]
        for block in range(work.first_block, work.first_block + work.ranges):
            result[block].append((spec.order, spec.layout))
    return result


def row_items(specs: list[Spec], multiprocessors: int) -> list[list]:
    """Of a reduction, by order."""
    (launch,) = planner.plan_iterations(_planned(specs), 2, True, planner.Device(multiprocessors))
    orders = [specs[w.matrix].order for w in launch.work for _ in range(-(-specs[w.matrix].order // 64))]
    return _in_turn(orders, launch.blocks)


def met(kernel: Kernel, specs: list[Spec], multiprocessors: int) -> set[tuple]:
    """The kinds of items of which the second follows the first in a block."""
    return {pair for block in kernel.items(specs, multiprocessors) for pair in pairwise(block)}


def kinds(kernel: Kernel) -> set[tuple]:
    """All that some lists of its matrices have."""
    random = Random(1)
    lists = (random.choices(kernel.specs, k=8) for _ in range(100))
    return {kind for specs in lists for block in kernel.items(specs, 2) for kind in block}


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


_passes = _specs(torch.float32, [(5, 40), (70, 20), (1030, 8)])
KERNELS = {
    "residual, float64": Kernel(_residual_specs(torch.float64), residual_items),
    "residual, float32": Kernel(_residual_specs(torch.float32), residual_items),
    "residual, bfloat16": Kernel(_residual_specs(torch.bfloat16), residual_items, _has_parts),
    "product, float32": Kernel(_specs(torch.float32, [(20, 16), (66, 16), (65, 132)], LAYOUTS), product_items),
    "product, bfloat16": Kernel(_specs(torch.bfloat16, [(65, 136)], LAYOUTS), product_items),
    "product, spreading": Kernel(_specs(torch.float32, [(65, 129), (129, 130)], ("along",)), spread_items),
    "srip, passes": Kernel(_passes, pass_items),
    "srip, rows": Kernel(_passes[:4], row_items),
}
