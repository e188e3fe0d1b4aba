"""Where `accumulate_gradients` puts each weight's gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..distributed.sharded.weight import ShardedWeight
from .matrix_form import same_view


class GradientTargets(NamedTuple):
    """Tensors to which gradients are added.

    Attributes:
        targets: one for each weight: its `.grad`, or for a weight that is computed a tensor of its own, which then goes
            backward from the weight; None where no gradient is wanted.
        computed: the weights that are computed, with their targets.
        made: the parameters that had no `.grad` before.
    """

    targets: list[Tensor | None]
    computed: dict[Tensor, Tensor]
    made: list[Tensor]


def gradient_targets(parameters: Sequence[Tensor], matrices: Sequence[Tensor]) -> GradientTargets:
    """Those of parameters as the model holds them, and as the penalty takes them."""
    targets: list[Tensor | None] = []
    computed: dict[Tensor, Tensor] = {}
    made: list[Tensor] = []
    for parameter, matrix in zip(parameters, matrices, strict=True):
        if not parameter.requires_grad:
            target = None
        elif matrix is parameter and parameter.is_leaf:  # the usual case comes first
            target = parameter.grad
            if target is None:
                target = _new_grad(parameter, made)
        elif isinstance(matrix, ShardedWeight):
            target = matrix.like(_sharded_target(parameter, computed, made))
        else:
            target = _target_of_view(parameter, matrix, made)
            if target is None:
                target = computed[matrix] = torch.zeros_like(matrix, requires_grad=False)
        targets.append(target)
    return GradientTargets(targets, computed, made)


def _new_grad(parameter: Tensor, made: list[Tensor]) -> Tensor:
    dtype = getattr(parameter, "grad_dtype", None)  # that of the weight unless torch was told another
    parameter.grad = grad = torch.zeros_like(parameter, requires_grad=False, dtype=dtype)
    made.append(parameter)
    return grad


def _target_of_view(parameter: Tensor, matrix: Tensor, made: list[Tensor]) -> Tensor | None:
    """A view of the parameter's `.grad`; None where the matrix is computed, or lies otherwise than `.grad` does."""
    if not parameter.is_leaf or matrix._base is not parameter:
        return None
    grad = _new_grad(parameter, made) if parameter.grad is None else parameter.grad
    return same_view(grad, parameter, matrix)


def _sharded_target(parameter: Any, computed: dict[Tensor, Tensor], made: list[Tensor]) -> Tensor:
    if not parameter.is_leaf:
        target = computed[parameter] = torch.zeros_like(parameter, requires_grad=False)
        return target
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter, requires_grad=False)
        made.append(parameter)
    elif parameter.grad.placements != parameter.placements:  # tensor parallelism may leave partial sums
        parameter.grad = parameter.grad.redistribute(parameter.device_mesh, parameter.placements)
    return parameter.grad
