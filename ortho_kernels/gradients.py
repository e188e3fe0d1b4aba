"""A penalty's value and its gradients in one call, for whoever needs no graph: a decoupled step, or a trainer that adds the
penalty to gradients that are already there.

It is the forward operator and the backward operator, which writes to the gradients or adds to them in place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor

from .backends.protocol import Into
from .backends.registry import serving
from .batches import GivenTargets, NewTargets, fold_batches, fold_pairs
from .functional import as_list, checked, pack_start, reduce
from .ops import new_gradients
from .options import SO, SRIP, CrossGram
from .pair_views import PairViews, pair_views
from .weight_checks import PLAIN, wraps_tensors
from .weight_views import WeightViews, is_transformed, weight_views


def soft_orthogonality_value_and_grad(
    weights: Sequence[Tensor],
    *,
    groups: int | Sequence[int] = 1,
    batch_dims: int | Sequence[int] = 0,
    side: str = "small",
    diagonal: float = 1.0,
    off_diagonal: float = 1.0,
    squared: bool = True,
    norm: str = "fro",
    normalize: str | None = None,
    against: Sequence[Tensor] | None = None,
    reduction: str = "sum",
    scale: float = 1.0,
    accumulate_into: Sequence[Tensor | None] | None = None,
) -> tuple[Tensor, list[Tensor | None]]:
    """`soft_orthogonality`, and `scale` times its gradients. Nothing is recorded for autograd.

    Args:
        scale: the factor of the gradients; the value is without it.
        accumulate_into: one tensor for each weight, of its shape, dtype and device, to which the gradient is added in place;
            None in the place of a weight whose gradient is not wanted. By default new tensors are made, for every weight.
        against: constants here, which get no gradients.
        reduction: for `"none"` the gradients are those of the sum of all values.

    The other arguments, and what is raised, are those of `soft_orthogonality`; but sharded weights are a `ValueError`:
    `OrthogonalityPenalty.accumulate_gradients` gives each process its part.

    Returns:
        The value, and the list of the tensors that hold the gradients.
    """
    options = checked(SO, reduction, side, diagonal, off_diagonal, squared, norm, normalize)
    weights = as_list(weights, shards="refuse")
    if against is not None:
        others = as_list(against, "against", shards="refuse")
        matrices, others, groups = fold_pairs(weights, others, groups, batch_dims)
        tensors, pairs = pair_views(matrices, others, groups)
        targets = _targets(weights, matrices, None, scale, accumulate_into)
        into = targets.into(_factor(scale, reduction, pairs, side))
        into = into._replace(targets=[*into.targets, *(None for _ in others)], fit=False)
        values = cross_gram_gradients(tensors, pairs, CrossGram.of(options), into)
        return reduce(values, reduction, pairs, side), targets.filled()
    matrices, groups = fold_batches(weights, groups, batch_dims)
    views = weight_views(matrices, groups)
    targets = _targets(weights, matrices, views, scale, accumulate_into)
    into = targets.into(_factor(scale, reduction, views, side))
    values = soft_orthogonality_gradients(matrices, views, options, into)
    return reduce(values, reduction, views, side), targets.filled()


def srip_value_and_grad(
    weights: Sequence[Tensor],
    *,
    groups: int | Sequence[int] = 1,
    batch_dims: int | Sequence[int] = 0,
    side: str = "small",
    iterations: int = 2,
    start: Sequence[Tensor] | None = None,
    generator: torch.Generator | None = None,
    gradient: str = "through",
    squared: bool = False,
    reduction: str = "sum",
    scale: float = 1.0,
    accumulate_into: Sequence[Tensor | None] | None = None,
) -> tuple[Tensor, list[Tensor | None]]:
    """`srip`, and `scale` times its gradients. Nothing is recorded for autograd.

    `scale`, `accumulate_into`, `reduction` and the result are as in `soft_orthogonality_value_and_grad`, the other arguments
    those of `srip`.
    """
    options = checked(SRIP, reduction, side, iterations, gradient, squared)
    weights = as_list(weights, shards="refuse")
    matrices, groups = fold_batches(weights, groups, batch_dims)
    views = weight_views(matrices, groups)
    targets = _targets(weights, matrices, views, scale, accumulate_into)
    packed = pack_start(start, matrices, views, side, generator)
    into = targets.into(_factor(scale, reduction, views, side))
    values, _ = srip_gradients(matrices, views, options, packed, into)
    return reduce(values, reduction, views, side), targets.filled()


# The same for weights and options that are checked: one value a matrix.


def soft_orthogonality_gradients(weights: list[Tensor], views: WeightViews, options: SO, into: Into) -> Tensor:
    if not weights:
        return torch.zeros(0)
    return serving(views, options).soft_orthogonality_gradients(weights, views, options, into)


def cross_gram_gradients(tensors: list[Tensor], views: PairViews, options: CrossGram, into: Into) -> Tensor:
    """Of the weights and then the others, which have no targets."""
    if not tensors:
        return torch.zeros(0)
    return serving(views, options).cross_gram_gradients(tensors, views, options, into)


def srip_gradients(
    weights: list[Tensor], views: WeightViews, options: SRIP, start: Tensor, into: Into, follow: bool = False
) -> tuple[Tensor, Tensor | None]:
    """And the normalized vectors with which the iteration ends, packed as `start`, if `follow`."""
    if not weights:
        return torch.zeros(0), torch.zeros(0)
    return serving(views, options).srip_gradients(weights, views, options, start, into, follow)


def check_scale(scale: object) -> None:
    if not isinstance(scale, (int, float, Real)) or not math.isfinite(scale):
        raise ValueError(f"scale must be a finite number; got {scale!r}")


def _factor(scale: float, reduction: str, views: WeightViews, side: str) -> float | Tensor:
    if reduction == "entries":
        return scale * views.inverse_entries(side)
    return scale / views.matrix_count if reduction == "mean" and views.matrix_count else float(scale)


def _targets(
    weights: list[Tensor],
    matrices: list[Tensor],
    views: WeightViews | None,
    scale: float,
    accumulate_into: Sequence[Tensor | None] | None,
) -> NewTargets | GivenTargets:
    """The tensors that get the gradients: new ones, or those given, which are checked."""
    check_scale(scale)
    if accumulate_into is None:
        return NewTargets(new_gradients(matrices, views=views), weights, matrices)
    given = None if isinstance(accumulate_into, Tensor) else list(accumulate_into)
    if given is None or len(given) != len(weights):
        count = "one tensor" if given is None else f"{len(given)} tensors"
        raise ValueError(
            f"accumulate_into must be a list with one tensor, or None, a weight: got {count} for {len(weights)} weights"
        )
    if not PLAIN.issuperset(map(type, given)) or _kinds(given) != _kinds(weights):
        for index, (target, weight) in enumerate(zip(given, weights, strict=True)):
            _check_target(index, target, weight)
    if not is_transformed():
        _check_memory(given, weights)
    return GivenTargets(given, weights, matrices)


def _check_memory(targets: list[Tensor | None], weights: list[Tensor]) -> None:
    """Weights are read while gradients are written."""
    read = {weight.data_ptr() for weight in weights if weight.numel()}
    for index, target in enumerate(targets):
        if target is not None and target.numel() and target.data_ptr() in read:
            raise ValueError(
                f"accumulate_into[{index}] shares its memory with a weight, which is read while gradients are written; give "
                "tensors of their own, and add them to the weights afterwards"
            )


def _kinds(tensors: Sequence[Tensor | None]) -> list[tuple]:
    return [(t.shape, t.dtype, t.device, t.layout) for t in tensors if t is not None]


def _check_target(index: int, target: object, weight: Tensor) -> None:
    if target is None:
        return
    if not isinstance(target, Tensor) or wraps_tensors(target):
        raise TypeError(f"accumulate_into[{index}] is a {type(target).__name__}; expected a plain torch.Tensor or None")
    [given], [expected] = _kinds([target]), _kinds([weight])
    if given != expected:
        raise ValueError(
            f"accumulate_into[{index}] is a {given[3]} tensor of shape {tuple(given[0])}, {given[1]} on {given[2]}; "
            f"expected a dense one like weights[{index}]: shape {tuple(expected[0])}, {expected[1]} on {expected[2]}"
        )
