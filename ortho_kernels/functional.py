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
from .distributed import full_tensors
from .matrix_view import check_side, check_storage, is_count, wraps_tensors
from .plan import Plan, plan_of

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
            weight whose columns have no single stride in any order (such as `weight[:, ::2]`) is copied first. Sharded
            weights (`DTensor`) are gathered, a collective; each process gets its part of the gradient.
        groups: the number of groups of each weight (of a grouped convolution), or one number for all.
        side: the Gram: `"rows"` W W^T, `"cols"` W^T W, `"small"` or `"large"` whichever is smaller or larger. With equal
            factors the gradient is the same on all sides, and values differ by the constant |rows - cols|. With unequal
            ones on the larger side, terms of the gradient cancel near orthogonality. Below the float32 matmul precision
            `"highest"` the CPU kernels lose digits there: up to 19 % of the gradient at factors 1 and 1.001. The CUDA
            kernels keep them; the Triton kernels lose them too.
        diagonal, off_diagonal: what the squares on and off the diagonal of R = W W^T - I count: (1, 1) is SO,
            (0, 1) the off-diagonal penalty of BigGAN.
        squared: the square root ||R||_F of each value instead, if False (its gradient at R = 0 is 0).
        reduction: `"sum"`, `"mean"` over matrices, or `"none"`: one value a matrix, groups of a weight side by side.

    Returns:
        A float32 tensor (float64 where any weight is float64), differentiable once; a NaN or Inf in a weight comes out.

    Raises:
        TypeError, ValueError: naming the weight and what was expected.
        RuntimeError: for a weight whose storage was freed; under `torch.func.vmap`, unless the torch backend serves.
    """
    check_soft_orthogonality(side, diagonal, off_diagonal, reduction)
    weights = full_tensors(as_list(weights))
    values = soft_orthogonality_values(
        weights, plan_of(weights, groups), side=side, diagonal=diagonal, off_diagonal=off_diagonal, squared=squared
    )
    return reference.reduce(values, reduction)


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
        generator: draws the fresh vectors; torch's default generator if None. That all processes draw the same ones is the
            caller's duty, and sharded weights need `start` or this. `OrthogonalityPenalty` has the same on all.
        gradient: `"through"` differentiates the iteration (exact); `"envelope"` holds its last vector fixed, the gradient
            to which the exact one tends as the iteration converges.
        squared: sigma^2 instead (Bansal et al., NeurIPS 2018).

    Returns:
        A float32 tensor (float64 where any weight is float64), differentiable once; a NaN or Inf in a weight comes out.

    Raises:
        TypeError, ValueError: naming the weight and what was expected.
        RuntimeError: for a weight whose storage was freed; under `torch.func.vmap`, unless the torch backend serves.
    """
    check_srip(side, iterations, generator, gradient, reduction)
    weights = as_list(weights)
    if start is not None or generator is not None:  # else each process would draw its own: `plan_of` refuses
        weights = full_tensors(weights)
    plan = plan_of(weights, groups)
    packed = pack_start(start, weights, plan, side, generator)
    values, _ = srip_values(weights, plan, packed, side=side, iterations=iterations, gradient=gradient, squared=squared)
    return reference.reduce(values, reduction)


# The same for weights that are planned and options that are checked: one value a matrix.


def soft_orthogonality_values(
    weights: list[Tensor],
    plan: Plan,
    *,
    side: str = "small",
    diagonal: float = 1.0,
    off_diagonal: float = 1.0,
    squared: bool = True,
) -> Tensor:
    if not weights:
        return torch.zeros(0)
    if serves_torch(weights, plan):
        return eager.call(
            reference.soft_orthogonality, weights, groups=plan.groups, side=side, diagonal=diagonal,
            off_diagonal=off_diagonal, squared=squared, reduction="none",
        )  # fmt: skip
    by_constant = differs_by_constant(side, diagonal, off_diagonal)
    values, _ = ops.soft_orthogonality(
        plan.addressable(weights),
        plan.groups,
        plan.sides("small" if by_constant else side),
        float(diagonal),
        float(off_diagonal),
        _wants_gradient(weights),
    )
    if by_constant:
        values = values.add(plan.null_space(side), alpha=float(diagonal))
    return values if squared else reference.square_root(values)


def differs_by_constant(side: str, diagonal: float, off_diagonal: float) -> bool:
    """Whether SO on this side is that on the small one plus `diagonal * plan.null_space(side)`.

    With equal factors each eigenvalue -1 of the larger Gram's null space adds its square.
    """
    return side != "small" and diagonal == off_diagonal


def srip_values(
    weights: list[Tensor],
    plan: Plan,
    start: Tensor,
    *,
    side: str = "small",
    iterations: int = 2,
    gradient: str = "through",
    squared: bool = False,
    keep: bool = False,
) -> tuple[Tensor, Tensor]:
    """The values from packed start vectors, and what the operator kept for the backward (see `ops.srip`): always if `keep`,
    else where there will be one. The torch backend keeps nothing: autograd does."""
    if not weights:
        return torch.zeros(0), torch.zeros(0)
    if serves_torch(weights, plan):
        values = eager.call(
            reference.srip, weights, groups=plan.groups, side=side, iterations=iterations, gradient=gradient,
            squared=squared, start=unpack_start(start, plan, side), reduction="none",
        )  # fmt: skip
        return values, values.new_empty(0)
    values, kept = ops.srip(
        plan.addressable(weights),
        plan.groups,
        plan.sides(side),
        start,
        iterations,
        gradient == "through",
        keep or _wants_gradient(weights),
    )
    return values.square() if squared else values, kept


def serves_torch(weights: Sequence[Tensor], plan: Plan) -> bool:
    """Whether the reference serves these weights, under autograd, and no operator."""
    return choose(weights[0].device.type, plan.dtype) == "torch"


def pack_start(
    start: Sequence[Tensor] | None,
    weights: Sequence[Tensor],
    plan: Plan,
    side: str,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The start vectors of all matrices, packed: those given, or fresh Gaussian ones from one draw."""
    if start is not None:
        _check_start(start, weights, plan, side)
        check_storage(start, [f"start[{index}]" for index in range(len(start))])
        return torch.cat([x.detach().reshape(-1).to(plan.dtype) for x in start]) if start else torch.zeros(0)
    if ops.under_vmap(weights) and not serves_torch(weights, plan):
        ops.refuse_vmap()  # before vmap has its word on random numbers
    own = plan.device
    device = own if generator is None else generator.device
    return torch.randn(sum(plan.orders(side)), dtype=plan.dtype, device=device, generator=generator).to(own)


def unpack_start(start: Tensor, plan: Plan, side: str) -> list[Tensor]:
    """One `(groups, n)` tensor for each weight."""
    vectors = start.split(plan.vector_sizes(side))
    return [x.view(view.groups, view.order(side)) for x, view in zip(vectors, plan.views, strict=True)]


def as_list(weights: Sequence[Tensor]) -> list[Tensor]:
    if isinstance(weights, Tensor):
        raise TypeError("weights must be a list of tensors; got one tensor: wrap it, [weight]")
    return list(weights)


def check_soft_orthogonality(side: str, diagonal: float, off_diagonal: float, reduction: str) -> None:
    check_side(side)
    _check_choice("reduction", reduction, REDUCTIONS)
    for name, factor in (("diagonal", diagonal), ("off_diagonal", off_diagonal)):
        if not 0 <= factor < math.inf:
            raise ValueError(f"{name} must be a finite number, 0 or more; got {factor!r}")


def check_srip(side: str, iterations: int, generator: torch.Generator | None, gradient: str, reduction: str) -> None:
    check_side(side)
    _check_choice("reduction", reduction, REDUCTIONS)
    _check_choice("gradient", gradient, GRADIENTS)
    if not is_count(iterations):
        raise ValueError(f"iterations must be a positive int, the number of applications of R; got {iterations!r}")
    if not isinstance(generator, torch.Generator | None):
        raise TypeError(f"generator must be a torch.Generator; got {generator!r:.60}")


def _wants_gradient(weights: Sequence[Tensor]) -> bool:
    return torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)


def _check_choice(name: str, given: str, accepted: Sequence[str]) -> None:
    if given not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}; got {given!r}")


def _check_start(start: Sequence[Tensor], weights: Sequence[Tensor], plan: Plan, side: str) -> None:
    views = plan.views
    if isinstance(start, Tensor) or len(start) != len(views):
        given = "one tensor" if isinstance(start, Tensor) else f"{len(start)} tensors"
        raise ValueError(
            f"start must be a list with one (groups, n) tensor a weight: got {given} for {len(views)} weights"
        )
    for index, (vectors, weight, view) in enumerate(zip(start, weights, views, strict=True)):
        expected = (view.groups, view.order(side))
        if not isinstance(vectors, Tensor) or wraps_tensors(vectors) or not vectors.is_floating_point():
            raise TypeError(
                f"start[{index}] must be a plain floating-point tensor of shape {expected}; got {vectors!r:.60}"
            )
        if tuple(vectors.shape) != expected:
            raise ValueError(
                f"start[{index}] has shape {tuple(vectors.shape)}; expected {expected}: one vector a group, of the order of "
                f"the Gram on side {side!r} of weights[{index}], a {view} view"
            )
        if vectors.device != weight.device:
            raise ValueError(f"start[{index}] is on {vectors.device}, weights[{index}] on {weight.device}")
