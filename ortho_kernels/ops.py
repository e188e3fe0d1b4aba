"""The operators: schemas, shapes for tracing, and gradients. One call serves all weights of a model.

`weights` are raw weights, `groups[i]` tells how many matrices weight i holds and `sides[i]` which Gram of them is meant
(0: rows, W W^T; 1: cols, W^T W). Values, start vectors and everything kept for the backward have the compute dtype:
float64 where any weight is float64, else float32. Tensors of all matrices are packed one after the other:

- `values`     one a matrix
- `residuals`  the lower triangle of each R, row by row, weighted by `diagonal` and `off_diagonal`; n (n + 1) / 2 entries
- `start`      n entries, in the order of the rows or columns of the weight as its shape gives them
- `vectors`    `pairs x 2 x n`: for each application of R from the last to the first (only the last for the envelope
               gradient) the adjoint `lambda` and the vector `x`; the gradient is `sum (lambda x^T + x lambda^T) W`

Implementations are registered by the backends, one for each dispatch key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .matrix_view import matrix_view

NAMESPACE = "ortho_kernels"
ROWS, COLS = 0, 1

library = torch.library.Library(NAMESPACE, "DEF")
for schema in (
    "soft_orthogonality(Tensor[] weights, int[] groups, int[] sides, float diagonal, float off_diagonal, bool keep)"
    " -> (Tensor values, Tensor residuals)",
    "soft_orthogonality_backward(Tensor grad_values, Tensor[] weights, int[] groups, int[] sides, Tensor residuals,"
    " int[] wanted) -> Tensor[]",
    "srip(Tensor[] weights, int[] groups, int[] sides, Tensor start, int iterations, bool through, bool keep)"
    " -> (Tensor values, Tensor vectors)",
    "srip_backward(Tensor grad_values, Tensor[] weights, int[] groups, int[] sides, Tensor vectors, int pairs,"
    " int[] wanted) -> Tensor[]",
):
    library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))

soft_orthogonality = torch.ops.ortho_kernels.soft_orthogonality.default
soft_orthogonality_backward = torch.ops.ortho_kernels.soft_orthogonality_backward.default
srip = torch.ops.ortho_kernels.srip.default
srip_backward = torch.ops.ortho_kernels.srip_backward.default


def compute_dtype(weights: Sequence[Tensor]) -> torch.dtype:
    """The dtype of values: float64 where any weight is float64, else float32."""
    return torch.float64 if any(weight.dtype is torch.float64 for weight in weights) else torch.float32


def orders(weights: Sequence[Tensor], groups: Sequence[int], sides: Sequence[int]) -> list[int]:
    """The order n of every matrix, groups of one weight side by side."""
    result = []
    for weight, count, side in zip(weights, groups, sides, strict=True):
        view = matrix_view(weight, count)
        result += [view.rows if side == ROWS else view.cols] * count
    return result


# Shapes, for torch.compile and torch.export


def _fake_soft_orthogonality(weights, groups, sides, diagonal, off_diagonal, keep):
    n = orders(weights, groups, sides)
    kept = sum(order * (order + 1) // 2 for order in n) if keep else 0
    like = {"dtype": compute_dtype(weights)}
    return weights[0].new_empty(len(n), **like), weights[0].new_empty(kept, **like)


def _fake_srip(weights, groups, sides, start, iterations, through, keep):
    n = orders(weights, groups, sides)
    pairs = iterations if through else 1
    return start.new_empty(len(n)), start.new_empty(pairs * 2 * sum(n) if keep else 0)


def _fake_gradients(weights, wanted):
    return [torch.empty_like(w) if want else w.new_empty(0) for w, want in zip(weights, wanted, strict=True)]


torch.library.register_fake(f"{NAMESPACE}::soft_orthogonality", _fake_soft_orthogonality, lib=library)
torch.library.register_fake(f"{NAMESPACE}::srip", _fake_srip, lib=library)
torch.library.register_fake(
    f"{NAMESPACE}::soft_orthogonality_backward",
    lambda grad, weights, groups, sides, residuals, wanted: _fake_gradients(weights, wanted),
    lib=library,
)
torch.library.register_fake(
    f"{NAMESPACE}::srip_backward",
    lambda grad, weights, groups, sides, vectors, pairs, wanted: _fake_gradients(weights, wanted),
    lib=library,
)


# Gradients


def _save(ctx: Any, weights: Sequence[Tensor], groups: Sequence[int], sides: Sequence[int], kept: Tensor) -> None:
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(kept)
    ctx.save_for_backward(kept, *weights)
    ctx.groups, ctx.sides = groups, sides


def _setup_soft_orthogonality(ctx, inputs, output):
    weights, groups, sides, _, _, ctx.kept = inputs
    _save(ctx, weights, groups, sides, output[1])


def _setup_srip(ctx, inputs, output):
    weights, groups, sides, _, iterations, through, ctx.kept = inputs
    ctx.pairs = iterations if through else 1
    _save(ctx, weights, groups, sides, output[1])


def _gradients(ctx, grad_values, backward, *options):
    """One backward call for all weights that want a gradient."""
    if grad_values is None:
        return None
    if not ctx.kept:
        raise RuntimeError("this penalty was computed with keep=False: nothing was kept from which to take its gradient")
    kept, *weights = ctx.saved_tensors
    wanted = [int(want) for want in ctx.needs_input_grad[0]]
    gradients = backward(grad_values.contiguous(), weights, ctx.groups, ctx.sides, kept, *options, wanted)
    return [gradient if want else None for gradient, want in zip(gradients, wanted, strict=True)]


def _backward_soft_orthogonality(ctx, grad_values, _):
    return _gradients(ctx, grad_values, soft_orthogonality_backward), None, None, None, None, None


def _backward_srip(ctx, grad_values, _):
    return _gradients(ctx, grad_values, srip_backward, ctx.pairs), None, None, None, None, None, None


def _no_double_backward(ctx, *grads):
    raise RuntimeError(
        "the kernels' penalties can be differentiated once; for second derivatives run the forward under "
        "ortho_kernels.use_backend('torch')"
    )


torch.library.register_autograd(
    f"{NAMESPACE}::soft_orthogonality", _backward_soft_orthogonality, setup_context=_setup_soft_orthogonality, lib=library
)
torch.library.register_autograd(f"{NAMESPACE}::srip", _backward_srip, setup_context=_setup_srip, lib=library)
torch.library.register_autograd(f"{NAMESPACE}::soft_orthogonality_backward", _no_double_backward, lib=library)
torch.library.register_autograd(f"{NAMESPACE}::srip_backward", _no_double_backward, lib=library)
