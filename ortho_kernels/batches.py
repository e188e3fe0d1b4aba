"""Batches of matrices: weights whose leading dimensions count matrices, such as the experts of a mixture.

A batch is folded: its matrices stand one above the other, and count as the groups of one weight. Folding is a view where
the matrices follow each other in memory at the stride of their rows; elsewhere it copies. Autograd goes through both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from .backends.protocol import Into
from .distributed.sharded.weight import shard
from .weight_checks import check_groups, check_storage, check_weights, is_integer, is_sharded_weight


def fold_batches(
    weights: list[Tensor], groups: int | Sequence[int], batch_dims: int | Sequence[int], argument: str = "weights"
) -> tuple[list[Tensor], int | Sequence[int]]:
    """The weights without batch dimensions, and the number of matrices in each. Errors name them by `argument`.

    Raises:
        TypeError, ValueError: naming the weight, as `check_weights` does, and for batch dimensions that it can't have.
    """
    if type(batch_dims) is int and batch_dims == 0:
        return weights, groups
    dims = check_batch_dims(batch_dims, len(weights))
    if not any(dims):
        return weights, groups
    counts = check_groups(groups, len(weights))
    names = [f"{argument}[{index}]" for index in range(len(weights))]
    check_weights(weights, counts, names)
    folded, matrices = [], []
    for name, weight, count, batch in zip(names, weights, counts, dims, strict=True):
        check_batch(name, weight.shape, batch)
        if batch and count != 1:
            raise ValueError(
                f"{name} was given batch_dims={batch} and groups={count}: groups are those of a convolution, which is no "
                "batch of matrices; give one of the two"
            )
        folded.append(fold(weight, batch, name))
        matrices.append(count * math.prod(weight.shape[:batch]))
    return folded, matrices


def fold_pairs(
    weights: list[Tensor], others: list[Tensor], groups: int | Sequence[int], batch_dims: int | Sequence[int]
) -> tuple[list[Tensor], list[Tensor], int | Sequence[int]]:
    """Weights and the other of each, as `fold_batches` gives them, and the number of matrices in each.

    Raises:
        TypeError, ValueError: as `fold_batches`, and where the two of a pair hold different numbers of matrices.
    """
    if len(weights) != len(others):
        return weights, others, groups
    folded, counts = fold_batches(weights, groups, batch_dims)
    folded_others, other_counts = fold_batches(others, groups, batch_dims, "against")
    if counts != other_counts:
        pairs = zip(check_groups(counts, len(weights)), check_groups(other_counts, len(weights)), strict=True)
        index, (count, other) = next((index, pair) for index, pair in enumerate(pairs) if pair[0] != pair[1])
        raise ValueError(
            f"weights[{index}] has shape {tuple(weights[index].shape)}, a batch of {count}, and against[{index}] shape "
            f"{tuple(others[index].shape)}, a batch of {other}; the two of a pair need as many matrices"
        )
    return folded, folded_others, counts


def check_batch_dims(batch_dims: int | Sequence[int], weights: int) -> tuple[int, ...]:
    """One number of batch dimensions for each weight."""
    if not isinstance(batch_dims, Iterable):
        batch_dims = (batch_dims,) * weights
    dims = tuple(batch_dims)
    if len(dims) != weights:
        raise ValueError(f"batch_dims must be one int, or one int a weight: got {len(dims)} for {weights} weights")
    for index, given in enumerate(dims):
        if not is_integer(given) or given < 0:
            raise ValueError(f"weights[{index}] was given batch_dims={given!r}; expected an int, 0 or more")
    return dims


def check_batch(name: str, shape: Sequence[int], dims: int) -> None:
    """Raises `ValueError`, naming the weight, where a tensor of this shape has no such batch."""
    if dims and len(shape) - dims < 2:
        raise ValueError(
            f"{name} has shape {tuple(shape)}, of which batch_dims={dims} leaves {max(len(shape) - dims, 0)} dimensions; a "
            "matrix needs 2 or more"
        )
    if 0 in shape[:dims]:
        raise ValueError(f"{name} has shape {tuple(shape)}: its batch is empty; leave it out")


def fold(weight: Tensor, dims: int, name: str) -> Tensor:
    """A batch as one weight, its matrices one above the other: `(B, n, k)` becomes `(B n, k)`."""
    if not dims:
        return weight
    if is_sharded_weight(weight):
        return shard(weight.tensor, name, dims)  # type: ignore[attr-defined]
    if not folds_in_place(weight, dims):
        check_storage([weight], [name])
    return weight.flatten(0, dims)


def folds_in_place(weight: Tensor, dims: int) -> bool:
    """Whether `fold` is a view of the weight."""
    leading = [(size, stride) for size, stride in zip(weight.shape, weight.stride(), strict=True)][: dims + 1]
    leading = [(size, stride) for size, stride in leading if size != 1]
    return 0 in weight.shape or all(slow == size * fast for (_, slow), (size, fast) in pairwise(leading))


class NewTargets:
    """Gradients that are made for folded weights, which the caller gets in the shapes of his weights."""

    def __init__(self, made: Sequence[Tensor], weights: list[Tensor], matrices: list[Tensor]) -> None:
        self._made = list(made)
        self._weights = weights if matrices is not weights else None

    def into(self, factor: float | Tensor) -> Into:
        return Into(self._made, factor, fit=True)

    def filled(self) -> list[Tensor | None]:
        if self._weights is None:
            return list(self._made)
        return [
            made if made.dim() == weight.dim() else made.unflatten(0, weight.shape[: weight.dim() - made.dim() + 1])
            for made, weight in zip(self._made, self._weights, strict=True)
        ]


class GivenTargets:
    """The caller's tensors, to which the gradients of folded weights are added: through views where strides allow."""

    def __init__(self, given: list[Tensor | None], weights: list[Tensor], matrices: list[Tensor]) -> None:
        self._given = given
        self._apart: list[tuple[Tensor, Tensor]] = []
        self._targets = given if matrices is weights else self._folded(matrices)

    def _folded(self, matrices: list[Tensor]) -> list[Tensor | None]:
        folded: dict[int, Tensor] = {}  # one for each tensor, however often it is listed
        targets: list[Tensor | None] = []
        for target, matrix in zip(self._given, matrices, strict=True):
            if target is not None and target.dim() != matrix.dim():
                if id(target) not in folded:
                    folded[id(target)] = self._fold(target, target.dim() - matrix.dim())
                target = folded[id(target)]
            targets.append(target)
        return targets

    def _fold(self, target: Tensor, dims: int) -> Tensor:
        if folds_in_place(target, dims):
            return target.flatten(0, dims)
        self._apart.append((target, torch.zeros_like(target, memory_format=torch.contiguous_format)))
        return self._apart[-1][1].flatten(0, dims)

    def into(self, factor: float | Tensor) -> Into:
        return Into(self._targets, factor, accumulate=True)

    def filled(self) -> list[Tensor | None]:
        for target, computed in self._apart:
            target.add_(computed)
        return self._given
