"""What a list of weights asks of a launch, checked and worked out once for each list of shapes, strides and dtypes."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import torch
from torch import Tensor

from . import ops
from .matrix_view import MatrixView, check_groups, check_weights, is_addressable, matrix_view


class Plan:
    """The matrix views of weights and what follows from them. Holds no tensor; weights that look the same share it."""

    def __init__(self, weights: Sequence[Tensor], groups: Sequence[int]) -> None:
        self.groups = [int(count) for count in groups]
        self.views: list[MatrixView] = [matrix_view(w, count) for w, count in zip(weights, self.groups, strict=True)]
        self.dtype = ops.compute_dtype(weights)
        self._copied = [index for index, weight in enumerate(weights) if not is_addressable(weight)]
        self._sides: dict[str, list[int]] = {}
        self._orders: dict[str, list[int]] = {}

    def sides(self, side: str) -> list[int]:
        """The Gram of each weight, as the operators number them."""
        if side not in self._sides:
            self._sides[side] = [ops.ROWS if view.resolve(side) == "rows" else ops.COLS for view in self.views]
        return self._sides[side]

    def orders(self, side: str) -> list[int]:
        """The order of every matrix's Gram."""
        if side not in self._orders:
            self._orders[side] = [view.order(side) for view in self.views for _ in range(view.groups)]
        return self._orders[side]

    def addressable(self, weights: list[Tensor]) -> list[Tensor]:
        """The weights, with a copy in the place of those that no strides of a matrix describe."""
        if not self._copied:
            return weights
        weights = list(weights)
        for index in self._copied:
            weights[index] = weights[index].contiguous()
        return weights


_most_plans = 256  # a process with more models than that plans some of them again
_plans: dict[tuple, Plan] = {}
_changing = Lock()


def plan_of(weights: Sequence[Tensor], groups: int | Sequence[int], names: Sequence[str] | None = None) -> Plan:
    """The plan of these weights; `TypeError` or `ValueError`, naming the weight, where one can't be penalized."""
    counts = check_groups(groups, len(weights))
    signature = None if torch.compiler.is_compiling() else _signature(weights, counts)
    if signature is not None and (plan := _plans.get(signature)) is not None:
        return plan
    check_weights(weights, counts, names)
    plan = Plan(weights, counts)
    if signature is not None:
        with _changing:
            while len(_plans) >= _most_plans:
                del _plans[next(iter(_plans))]
            _plans[signature] = plan
    return plan


def _signature(weights: Sequence[Tensor], counts: tuple[int, ...]) -> tuple | None:
    """All that the checks and the plan depend on; None for what is no plain tensor (the checks tell what is wrong)."""
    if any(type(count) is not int for count in counts):  # True counts as 1 for a dict
        return None
    try:
        signature = (counts, *[(w.shape, w.stride(), w.dtype, w.device) for w in weights])
        hash(signature)
    except (AttributeError, TypeError, RuntimeError):
        return None
    return signature
