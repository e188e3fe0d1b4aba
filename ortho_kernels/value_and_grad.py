"""A penalty's value and its gradients in one call, for whoever needs no graph: a decoupled step, or a trainer that adds the
penalty to gradients that are already there.

On a CPU this is one operator that keeps residuals and matrices in the caches between value and gradient; elsewhere the
forward and the backward operator are called one after the other, and the `torch` backend asks autograd.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from numbers import Real

import torch
from torch import Tensor

from . import functional, ops, reference
from .matrix_view import check_storage, wraps_tensors
from .plan import Plan, plan_of


def soft_orthogonality_value_and_grad(
    weights: Sequence[Tensor],
    *,
    groups: int | Sequence[int] = 1,
    side: str = "small",
    diagonal: float = 1.0,
    off_diagonal: float = 1.0,
    squared: bool = True,
    reduction: str = "sum",
    scale: float = 1.0,
    accumulate_into: Sequence[Tensor | None] | None = None,
) -> tuple[Tensor, list[Tensor | None]]:
    """`soft_orthogonality`, and `scale` times its gradients. Nothing is recorded for autograd.

    Args:
        scale: the factor of the gradients; the value is told without it.
        accumulate_into: one tensor for each weight, of its shape, dtype and device, to which the gradient is added in place;
            None in the place of a weight whose gradient is not wanted. By default new tensors are made, for every weight.
        reduction: for `"none"` the gradients are those of the sum of all values.

    The other arguments, and what is raised, are those of `soft_orthogonality`; but sharded weights are a `ValueError`:
    `OrthogonalityPenalty.accumulate_gradients` gives each process its part.

    Returns:
        The value, and the list of the tensors that hold the gradients.
    """
    functional.check_soft_orthogonality(side, diagonal, off_diagonal, reduction)
    weights = functional.as_list(weights)
    plan = plan_of(weights, groups)
    gradients = _targets(weights, scale, accumulate_into)
    values = soft_orthogonality_values_and_gradients(
        weights, plan, gradients, _factor(scale, reduction, plan), accumulate_into is not None,
        side=side, diagonal=diagonal, off_diagonal=off_diagonal, squared=squared,
    )  # fmt: skip
    return reference.reduce(values, reduction), gradients


def srip_value_and_grad(
    weights: Sequence[Tensor],
    *,
    groups: int | Sequence[int] = 1,
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
    functional.check_srip(side, iterations, generator, gradient, reduction)
    weights = functional.as_list(weights)
    plan = plan_of(weights, groups)
    packed = functional.pack_start(start, weights, plan, side, generator)
    gradients = _targets(weights, scale, accumulate_into)
    values, _ = srip_values_and_gradients(
        weights, plan, packed, gradients, _factor(scale, reduction, plan), accumulate_into is not None,
        side=side, iterations=iterations, gradient=gradient, squared=squared,
    )  # fmt: skip
    return reference.reduce(values, reduction), gradients


# The same for weights that are planned and arguments that are checked: one value a matrix; None among the gradients where
# none is wanted. A scale that is a tensor stays on its device, where autograd takes it, since the operators take a number.


def soft_orthogonality_values_and_gradients(
    weights: list[Tensor],
    plan: Plan,
    gradients: Sequence[Tensor | None],
    scale: float | Tensor,
    add: bool,
    *,
    side: str = "small",
    diagonal: float = 1.0,
    off_diagonal: float = 1.0,
    squared: bool = True,
) -> Tensor:
    if not weights:
        return torch.zeros(0)
    if isinstance(scale, Tensor) or functional.serves_torch(weights, plan):
        compute = partial(
            functional.soft_orthogonality_values, plan=plan, side=side, diagonal=diagonal, off_diagonal=off_diagonal,
            squared=squared,
        )  # fmt: skip
        return _by_autograd(compute, weights, gradients, scale, add)
    # The root of a larger Gram's value is no matter of a constant.
    by_constant = squared and functional.differs_by_constant(side, diagonal, off_diagonal)
    sides = plan.sides("small" if by_constant else side)
    with _Layout(weights, plan, gradients, add) as layout:
        values = ops.soft_orthogonality_value_and_grad(
            layout.weights, plan.groups, sides, float(diagonal), float(off_diagonal), squared, scale,
            ops.backward_precision(), add, layout.targets, layout.wanted,
        )  # fmt: skip
    return values.add(plan.null_space(side), alpha=float(diagonal)) if by_constant else values


def srip_values_and_gradients(
    weights: list[Tensor],
    plan: Plan,
    start: Tensor,
    gradients: Sequence[Tensor | None],
    scale: float | Tensor,
    add: bool,
    *,
    side: str = "small",
    iterations: int = 2,
    gradient: str = "through",
    squared: bool = False,
) -> tuple[Tensor, Tensor]:
    """And the normalized vectors that the iteration ended with, packed; none where autograd serves."""
    if not weights:
        return torch.zeros(0), torch.zeros(0)
    if isinstance(scale, Tensor) or functional.serves_torch(weights, plan):

        def compute(leaves: list[Tensor]) -> Tensor:
            return functional.srip_values(
                leaves, plan, start, side=side, iterations=iterations, gradient=gradient, squared=squared
            )[0]

        values = _by_autograd(compute, weights, gradients, scale, add)
        return values, values.new_empty(0)
    with _Layout(weights, plan, gradients, add) as layout:
        return ops.srip_value_and_grad(
            layout.weights, plan.groups, plan.sides(side), start, iterations, gradient == "through", squared, scale, add,
            layout.targets, layout.wanted,
        )  # fmt: skip


class _Layout:
    """Weights and gradients as the operators take them: each gradient with its weight's strides, and a tensor of its own.

    Where that is not so (a sliced weight, a gradient in another memory format or dtype, one weight listed twice), the
    gradient is computed apart and added at the end.
    """

    def __init__(self, weights: list[Tensor], plan: Plan, gradients: Sequence[Tensor | None], add: bool) -> None:
        self.weights = plan.addressable(weights)
        self.wanted = [0 if gradient is None else 1 for gradient in gradients]
        self.targets: list[Tensor] = []
        self._add = add
        self._apart: list[tuple[Tensor, Tensor]] = []
        seen = set()
        for index, gradient in enumerate(gradients):
            if gradient is None:
                continue
            weight = self.weights[index]
            if gradient.stride() != weight.stride() or gradient.dtype != weight.dtype or id(gradient) in seen:
                check_storage([weights[index], gradient], [f"weights[{index}]", ops.gradient_name(index)])
                if self.weights is weights:
                    self.weights = list(weights)
                self.weights[index] = weights[index].detach().contiguous()
                computed = torch.zeros_like(gradient, dtype=weight.dtype, memory_format=torch.contiguous_format)
                self._apart.append((gradient, computed))
                gradient = computed
            seen.add(id(gradient))
            self.targets.append(gradient)

    def __enter__(self) -> _Layout:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if error is None:
            for gradient, computed in self._apart:
                gradient.add_(computed) if self._add else gradient.copy_(computed)


def _by_autograd(
    compute: Callable[..., Tensor],
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    scale: float | Tensor,
    add: bool,
) -> Tensor:
    targets = {ops.gradient_name(index): gradient for index, gradient in enumerate(gradients) if gradient is not None}
    check_storage(targets.values(), list(targets))
    with torch.enable_grad():
        leaves = [w.detach().requires_grad_(g is not None) for w, g in zip(weights, gradients, strict=True)]
        values = compute(leaves)
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        computed = torch.autograd.grad(scale * values.sum(), wanted) if wanted else ()
    with torch.no_grad():
        for target, gradient in zip(targets.values(), computed, strict=True):
            target.add_(gradient) if add else target.copy_(gradient)
    return values.detach()


def check_scale(scale: object) -> None:
    if not isinstance(scale, (int, float, Real)) or not math.isfinite(scale):
        raise ValueError(f"scale must be a finite number; got {scale!r}")


def _factor(scale: float, reduction: str, plan: Plan) -> float:
    matrices = sum(plan.groups)
    return scale / matrices if reduction == "mean" and matrices else float(scale)


def _targets(
    weights: Sequence[Tensor], scale: float, accumulate_into: Sequence[Tensor | None] | None
) -> list[Tensor | None]:
    """The tensors that get the gradients: new ones, or those given, which are checked."""
    check_scale(scale)
    if accumulate_into is None:
        return [torch.empty_like(weight, requires_grad=False) for weight in weights]
    if isinstance(accumulate_into, Tensor) or len(accumulate_into) != len(weights):
        count = "one tensor" if isinstance(accumulate_into, Tensor) else f"{len(accumulate_into)} tensors"
        raise ValueError(
            f"accumulate_into must be a list with one tensor, or None, a weight: got {count} for {len(weights)} weights"
        )
    for index, (weight, target) in enumerate(zip(weights, accumulate_into, strict=True)):
        if target is None:
            continue
        if not isinstance(target, Tensor) or wraps_tensors(target):
            raise TypeError(
                f"accumulate_into[{index}] is a {type(target).__name__}; expected a plain torch.Tensor or None"
            )
        given, expected = ((t.shape, t.dtype, t.device) for t in (target, weight))
        if given != expected or target.layout is not torch.strided:
            raise ValueError(
                f"accumulate_into[{index}] is a {target.layout} tensor of shape {tuple(given[0])}, {given[1]} on "
                f"{given[2]}; "
                f"expected a dense one like weights[{index}]: shape {tuple(expected[0])}, {expected[1]} on {expected[2]}"
            )
    return list(accumulate_into)
