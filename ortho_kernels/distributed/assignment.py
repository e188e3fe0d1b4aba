"""Which rank owns which item, by what each costs, and what the penalty of a matrix costs.

Costs are multiply-adds of a value and its gradient, for a matrix whose Gram has order n, and whose other dimension is the
depth k.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..options import SO, SRIP


def assign(costs: Sequence[float], ranks: int, loads: Sequence[float] | None = None) -> list[int]:
    """The owner of each item: the longest first, each to the rank that has the least to do (Graham 1969).

    Equal costs go by their index, and equal loads to the first rank, so every process finds the same owners. No rank ends
    with more than 4/3 of the least possible, where all start without a load.

    Args:
        loads: what each rank has to do already; nothing by default.
    """
    loads = [0.0] * ranks if loads is None else list(loads)
    if len(loads) != ranks:
        raise ValueError(f"loads must have one number for each of {ranks} ranks; got {len(loads)}")
    owners = [0] * len(costs)
    for index in sorted(range(len(costs)), key=lambda index: -costs[index]):
        owners[index] = min(range(ranks), key=loads.__getitem__)
        loads[owners[index]] += costs[index]
    return owners


def matrix_cost(options: SO | SRIP, order: int, depth: int) -> float:
    """The cost of one matrix under these options."""
    if isinstance(options, SRIP):
        return power_cost(order, depth, options.iterations, options.pairs)
    return gram_cost(order, depth)


def gram_cost(order: int, depth: int) -> float:
    """Of SO: the triangle of R, n^2 k / 2, and R W, n^2 k."""
    return 1.5 * order**2 * depth


def power_cost(order: int, depth: int, iterations: int, pairs: int) -> float:
    """Of SRIP: 2 n k for each application of R, forward and backward, and 4 n k for each pair of the gradient."""
    return (2 * (iterations + pairs - 1) + 4 * pairs) * order * depth
