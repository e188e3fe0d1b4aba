"""What a list of weights asks of a launch, checked and worked out once for each list of shapes, strides and dtypes."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import torch
from torch import Tensor

from . import ops
from .matrix_view import MatrixView, check_groups, check_storage, check_weights, is_addressable, matrix_view


class Plan:
    """The matrix views of weights and what follows from them, constants on their device included.

    Holds no weight: all that look the same share it.
    """

    def __init__(self, weights: Sequence[Tensor], groups: Sequence[int]) -> None:
        self.groups = [int(count) for count in groups]
        self.views: list[MatrixView] = [matrix_view(w, count) for w, count in zip(weights, self.groups, strict=True)]
        self.dtype = ops.compute_dtype(weights)
        self.device = weights[0].device if weights else torch.device("cpu")
        self._copied = [index for index, weight in enumerate(weights) if not is_addressable(weight)]
        self._sides: dict[str, list[int]] = {}
        self._orders: dict[str, list[int]] = {}
        self._null_spaces: dict[str, Tensor] = {}

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

    def vector_sizes(self, side: str) -> list[int]:
        """The number of entries of each weight's start vectors, those of all its groups."""
        return [view.groups * view.order(side) for view in self.views]

    def null_space(self, side: str) -> Tensor:
        """How many more eigenvalues -1 the residual of each matrix has on that side than on the small one.

        Made once, in the compute dtype: to copy numbers to a GPU takes a wait, which a CUDA graph can't capture.
        """
        kept = self._null_spaces.get(side)
        if kept is None:
            counts = [n - small for n, small in zip(self.orders(side), self.orders("small"), strict=True)]
            kept = torch.tensor(counts, dtype=self.dtype, device=self.device)
            if not _is_transformed():
                self._null_spaces[side] = kept
        return kept

    def addressable(self, weights: list[Tensor]) -> list[Tensor]:
        """The weights, with a copy in the place of those that no strides of a matrix describe."""
        if not self._copied:
            return weights
        weights = list(weights)
        for index in self._copied:
            check_storage([weights[index]], [f"weights[{index}]"])
            weights[index] = weights[index].contiguous()
        return weights


def _is_transformed() -> bool:
    """Whether a tensor that is made now belongs to a trace or a transform, and is nothing to keep."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
    )


_most_plans = 256  # a process with more models than that plans some of them again
_plans: dict[tuple, Plan] = {}
_changing = Lock()


def plan_of(weights: Sequence[Tensor], groups: int | Sequence[int], names: Sequence[str] | None = None) -> Plan:
    """The plan of these weights; `TypeError` or `ValueError`, naming the weight, where one can't be penalized."""
    counts = check_groups(groups, len(weights))
    signature, kept = (None, None) if torch.compiler.is_compiling() else _kept(weights, counts)
    if kept is not None:
        return kept
    check_weights(weights, counts, names)
    plan = Plan(weights, counts)
    if signature is not None:
        with _changing:
            while len(_plans) >= _most_plans:
                del _plans[next(iter(_plans))]
            _plans[signature] = plan
    return plan


def _kept(weights: Sequence[Tensor], counts: tuple[int, ...]) -> tuple[tuple | None, Plan | None]:
    """All that the checks and the plan depend on, and the plan that is kept for it.

    None for both where a weight can't be asked (the checks say what is wrong).
    """
    if not {int}.issuperset(map(type, counts)):  # True counts as 1 for a dict
        return None, None
    try:
        signature = (counts, *[(type(w), w.shape, w.stride(), w.dtype, w.device) for w in weights])
        return signature, _plans.get(signature)  # hashed here, once
    except (AttributeError, TypeError, RuntimeError):
        return None, None
