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
        target = None
        if not parameter.requires_grad:
            targets.append(None)
            continue
        if isinstance(matrix, ShardedWeight):
            targets.append(matrix.like(_sharded_target(parameter, computed, made)))
            continue
        if parameter.is_leaf and (matrix is parameter or matrix._base is parameter):
            grad = parameter.grad
            if grad is None:
                dtype = getattr(parameter, "grad_dtype", None)  # that of the weight unless torch was told another
                parameter.grad = grad = torch.zeros_like(parameter, requires_grad=False, dtype=dtype)
                made.append(parameter)
            target = grad if matrix is parameter else same_view(grad, parameter, matrix)
        if target is None:
            target = computed[matrix] = torch.zeros_like(matrix, requires_grad=False)
        targets.append(target)
    return GradientTargets(targets, computed, made)


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
