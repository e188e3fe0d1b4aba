"""Penalties over a list of weights: checked input in, one operator forward, one backward, a differentiable value out.

The formulas stand in `reference.py`, which has the same signatures; arXiv 2411.00392 is the paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from . import ops, reference
from .backends import eager, gpu  # noqa: F401  gpu registers
from .backends.choose import choose
from .matrix_view import MatrixView, addressable, check_groups, check_side, check_weights, is_count, matrix_view

REDUCTIONS = ("sum", "mean", "none")
GRADIENTS = ("through", "envelope")


def soft_orthogonality(
    weights: Sequence[Tensor],
    *,
    groups: int | Sequence[int] = 1,
    side: str = "small",
    diagonal: float = 1.0,
    off_diagonal: float = 1.0,
    squared: bool = True,
    reduction: str = "sum",
) -> Tensor:
    """Soft orthogonality ||W W^T - I||_F^2 of every matrix of every weight (arXiv 2411.00392, the SO regularizer).

    Args:
        weights: tensors of any shapes `(out, ...)` with 2 dimensions or more, float64, float32, bfloat16 or float16, all on
            one device. Strided weights (channels_last, transposed, ...) are read where they lie; only a convolution
            weight whose columns have no single stride in any order (such as `weight[:, ::2]`) is copied first.
        groups: the number of groups of each weight (of a grouped convolution), or one number for all.
        side: the Gram: `"rows"` W W^T, `"cols"` W^T W, `"small"` or `"large"` whichever is smaller or larger. With equal
            factors the gradient is the same on all sides, and values differ by the constant |rows - cols|.
        diagonal, off_diagonal: what the squares on and off the diagonal of R = W W^T - I count: (1, 1) is SO,
            (0, 1) the off-diagonal penalty of BigGAN.
        squared: the square root ||R||_F of each value instead, if False (its gradient at R = 0 is 0).
        reduction: `"sum"`, `"mean"` over matrices, or `"none"`: one value a matrix, groups of a weight side by side.

    Returns:
        A float32 tensor (float64 where any weight is float64), differentiable once; a NaN or Inf in a weight comes out.

    Raises:
        TypeError, ValueError: naming the weight and what was expected.
    """
    check_side(side)
    _check_choice("reduction", reduction, REDUCTIONS)
    for name, factor in (("diagonal", diagonal), ("off_diagonal", off_diagonal)):
        if not 0 <= factor < math.inf:
            raise ValueError(f"{name} must be a finite number, 0 or more; got {factor!r}")
    weights, counts = _checked(weights, groups)
    if not weights:
        return reference.reduce([], reduction)
    if choose(weights[0].device.type, ops.compute_dtype(weights)) == "torch":
        values = eager.call(
            reference.soft_orthogonality, weights, groups=counts, side=side, diagonal=diagonal,
            off_diagonal=off_diagonal, reduction="none",
        )  # fmt: skip
    else:
        # With equal factors the larger Gram's value is the smaller's plus one for each eigenvalue -1 of its null space.
        by_constant = diagonal == off_diagonal
        views = _views(weights, counts)
        values, _ = ops.soft_orthogonality(
            [addressable(weight) for weight in weights],
            counts,
            _sides(views, "small" if by_constant else side),
            float(diagonal),
            float(off_diagonal),
            _wants_gradient(weights),
        )
        if by_constant and side != "small":
            extra = [diagonal * (view.order(side) - view.order("small")) for view in views for _ in range(view.groups)]
            values = values + torch.tensor(extra, dtype=values.dtype, device=values.device)
    return reference.reduce(values if squared else reference.square_root(values), reduction)


def srip(
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
) -> Tensor:
    """SRIP: the spectral norm of R = W W^T - I of every matrix, estimated by power iteration (arXiv 2411.00392).

    sigma = |x_m| / |x_(m-1)| with x_i = R x_(i-1); R is never formed.

    Args:
        weights, groups, reduction: as in `soft_orthogonality`.
        side: the Gram. The larger one has a null space in which R is -1: its sigma never falls below 1, and its gradient
            can be useless; it is there to reproduce code that uses it.
        iterations: m, the number of applications of R; the paper's 2 by default. More come closer to the norm.
        start: x_0, one `(groups, n)` tensor for each weight, n the order of its Gram; a constant, to which no gradient
            flows. A fresh Gaussian vector by default.
        generator: draws the fresh vectors; torch's default generator if None.
        gradient: `"through"` differentiates the iteration (exact); `"envelope"` holds its last vector fixed, the gradient
            to which the exact one tends as the iteration converges.
        squared: sigma^2 instead (Bansal et al., NeurIPS 2018).

    Returns:
        A float32 tensor (float64 where any weight is float64), differentiable once; a NaN or Inf in a weight comes out.

    Raises:
        TypeError, ValueError: naming the weight and what was expected.
    """
    check_side(side)
    _check_choice("reduction", reduction, REDUCTIONS)
    _check_choice("gradient", gradient, GRADIENTS)
    if not is_count(iterations):
        raise ValueError(f"iterations must be a positive int, the number of applications of R; got {iterations!r}")
    if not isinstance(generator, torch.Generator | None):
        raise TypeError(f"generator must be a torch.Generator; got {generator!r:.60}")
    weights, counts = _checked(weights, groups)
    views = _views(weights, counts)
    if start is not None:
        _check_start(start, weights, views, side)
    if not weights:
        return reference.reduce([], reduction)
    if start is None:
        packed = draw_start(weights, views, side, generator)
    else:
        packed = torch.cat([vectors.detach().reshape(-1).to(ops.compute_dtype(weights)) for vectors in start])
    values, _ = power_iteration(weights, views, side, packed, iterations, gradient, keep=_wants_gradient(weights))
    return reference.reduce(values.square() if squared else values, reduction)


def draw_start(
    weights: Sequence[Tensor], views: Sequence[MatrixView], side: str, generator: torch.Generator | None = None
) -> Tensor:
    """Fresh Gaussian start vectors for all matrices, packed, from one draw."""
    size = sum(view.groups * view.order(side) for view in views)
    device = weights[0].device if generator is None else generator.device
    start = torch.randn(size, dtype=ops.compute_dtype(weights), device=device, generator=generator)
    return start.to(weights[0].device)


def power_iteration(
    weights: Sequence[Tensor],
    views: Sequence[MatrixView],
    side: str,
    start: Tensor,
    iterations: int,
    gradient: str,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """sigma of every matrix from packed start vectors, and what the operator kept for the backward (see `ops.srip`).

    Input is checked by the caller. The torch backend keeps nothing: autograd does.
    """
    counts = [view.groups for view in views]
    if choose(weights[0].device.type, ops.compute_dtype(weights)) == "torch":
        starts = start.split([view.groups * view.order(side) for view in views])
        values = eager.call(
            reference.srip, weights, groups=counts, side=side, iterations=iterations, gradient=gradient, reduction="none",
            start=[x.view(view.groups, view.order(side)) for x, view in zip(starts, views, strict=True)],
        )  # fmt: skip
        return values, values.new_empty(0)
    return ops.srip(
        [addressable(weight) for weight in weights],
        counts,
        _sides(views, side),
        start,
        iterations,
        gradient == "through",
        keep,
    )


def _checked(weights: Sequence[Tensor], groups: int | Sequence[int]) -> tuple[list[Tensor], list[int]]:
    if isinstance(weights, Tensor):
        raise TypeError("weights must be a list of tensors; got one tensor: wrap it, [weight]")
    weights = list(weights)
    counts = check_groups(groups, len(weights))
    check_weights(weights, counts)
    return weights, [int(count) for count in counts]


def _views(weights: Sequence[Tensor], counts: Sequence[int]) -> list[MatrixView]:
    return [matrix_view(weight, count) for weight, count in zip(weights, counts, strict=True)]


def _sides(views: Sequence[MatrixView], side: str) -> list[int]:
    return [ops.ROWS if view.resolve(side) == "rows" else ops.COLS for view in views]


def _wants_gradient(weights: Sequence[Tensor]) -> bool:
    return torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)


def _check_choice(name: str, given: str, accepted: Sequence[str]) -> None:
    if given not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}; got {given!r}")


def _check_start(start: Sequence[Tensor], weights: Sequence[Tensor], views: Sequence[MatrixView], side: str) -> None:
    if isinstance(start, Tensor) or len(start) != len(views):
        given = "one tensor" if isinstance(start, Tensor) else f"{len(start)} tensors"
        raise ValueError(
            f"start must be a list with one (groups, n) tensor a weight: got {given} for {len(views)} weights"
        )
    for index, (vectors, weight, view) in enumerate(zip(start, weights, views, strict=True)):
        expected = (view.groups, view.order(side))
        if not isinstance(vectors, Tensor) or not vectors.is_floating_point():
            raise TypeError(f"start[{index}] must be a floating-point tensor of shape {expected}; got {vectors!r:.60}")
        if tuple(vectors.shape) != expected:
            raise ValueError(
                f"start[{index}] has shape {tuple(vectors.shape)}; expected {expected}: one vector a group, of the order of "
                f"the Gram on side {side!r} of weights[{index}], a {view} view"
            )
        if vectors.device != weight.device:
            raise ValueError(f"start[{index}] is on {vectors.device}, weights[{index}] on {weight.device}")
