"""Penalties over a list of weights: checked input in, one operator forward, one backward, a differentiable value out.

The formulas stand in `reference.py`, which has the same signatures; arXiv 2411.00392 is the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from . import ops
from .backends import gpu  # noqa: F401  registers the operators
from .backends.registry import serving
from .backends.torch import TorchBackend
from .batches import fold_batches, fold_pairs
from .distributed.full import full_tensors
from .distributed.sharded.serving import serving_shards
from .distributed.sharded.weight import shard_weights
from .options import SO, SRIP, CrossGram, check_reduction
from .pair_views import PairViews, pair_views
from .weight_checks import PLAIN, check_storage, wraps_tensors
from .weight_views import WeightViews, weight_views

Options = TypeVar("Options", SO, SRIP)


def checked(penalty: Callable[..., Options], reduction: str, *options: Any) -> Options:
    """The options of a penalty, made once and kept."""
    if torch.compiler.is_compiling():  # Dynamo would warn of the cache
        return _check(penalty, reduction, *options)
    try:
        return _checked(penalty, reduction, *options)
    except TypeError:  # an option has no hash, and no place here: the check finds the words
        return _check(penalty, reduction, *options)


def _check(penalty: Callable[..., Options], reduction: str, *options: Any) -> Options:
    made = penalty(*options)
    check_reduction(reduction, made)
    return made


_checked = lru_cache(typed=True)(_check)


def soft_orthogonality(
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
) -> Tensor:
    """Soft orthogonality ||W W^T - I||_F^2 of every matrix of every weight (arXiv 2411.00392, the SO regularizer).

    A weight of three or more dimensions is a convolution's: `(out, in, k)` is one matrix `out x (in k)`. With `batch_dims=1`
    it is a batch: `(B, n, k)` is B matrices `n x k`.

    Args:
        weights: tensors of any shapes `(out, ...)` with 2 dimensions or more, float64, float32, bfloat16 or float16, all on
            one device. Strided weights (channels_last, transposed, ...) are read where they lie; only a convolution
            weight whose columns have no single stride in any order (such as `weight[:, ::2]`) is copied first. Sharded
            weights (`DTensor`) stay sharded, in a call that all their ranks make; each gets its part of the gradient. With
            `against`, and compiled, they are gathered.
        groups: the number of groups of each weight (of a grouped convolution), or one number for all.
        batch_dims: how many leading dimensions of each weight count matrices, or one number for all; each matrix keeps 2
            dimensions or more. A batch whose matrices don't follow each other at one stride of rows is copied first.
        side: the Gram: `"rows"` W W^T, `"cols"` W^T W, `"small"` or `"large"` whichever is smaller or larger. With equal
            factors the gradient is the same on all sides, and values differ by the constant |rows - cols|. With unequal
            ones on the larger side, terms of the gradient cancel near orthogonality. Below the float32 matmul precision
            `"highest"` the CPU kernels lose digits there: up to 19 % of the gradient at factors 1 and 1.001. The CUDA
            kernels keep them; the Triton kernels lose them too. `"both"` adds both sides, as DSO does (Bansal et al.,
            NeurIPS 2018): twice the small side's value and the constant. It goes with norm="fro", squared, equal factors.
        diagonal, off_diagonal: what the squares on and off the diagonal of R = W W^T - I count: (1, 1) is SO,
            (0, 1) the off-diagonal penalty of BigGAN. For other norms: what those entries count.
        squared: the square root ||R||_F of each value instead, if False (its gradient at R = 0 is 0).
        norm: of R = Gram - I, with w the `diagonal` or `off_diagonal` factor of an entry: `"fro"` sum w R_ij^2, `"l1"`
            sum w |R_ij|, `"l21"` sum_i sqrt(sum_j w R_ij^2), `"max"` max w |R_ij|. The gradient at |R_ij| = 0 or at a zero
            row of R is 0; of equal largest entries the first of the lower triangle, row by row, gets it.
        normalize: `"rows"` scales the rows of every matrix to length 1 first, so that the Gram of the rows holds cosines.
            Zero rows stay zero, with zero gradient; so are rows shorter than 3e-16 (float64: 1e-146), whose squares
            underflow.
        against: one other weight B for each weight A: the norm of A B^T in the place of R, the inner products of the rows
            of both. It has no identity: 0 means that each row of A is orthogonal to each of B (O-LoRA, arXiv 2310.14152;
            the difference loss of domain separation networks, arXiv 1608.06019, takes transposed features). Both have
            rows of one length and one dtype. Gradients go to whichever requires them; of equal largest entries the first,
            row by row, gets it. It goes with groups, norm, normalize and reduction.
        reduction: `"sum"`, `"mean"` over matrices, or `"none"`: one value a matrix, groups of a weight side by side.
            `"entries"` divides each value by the number of entries of its R, and adds: what `.mean()` of each layer gives.

    Returns:
        A float32 tensor (float64 where any weight is float64), differentiable once; NaN and Inf propagate.

    Raises:
        TypeError, ValueError: naming the weight and what was expected.
        RuntimeError: for a weight whose storage was freed; under `torch.func.vmap`, unless the torch backend serves.
    """
    options = checked(SO, reduction, side, diagonal, off_diagonal, squared, norm, normalize)
    weights = as_list(weights, shards="keep" if against is None else "gather")
    if against is not None:
        weights, others, groups = fold_pairs(weights, as_list(against, "against"), groups, batch_dims)
        tensors, pairs = pair_views(weights, others, groups)
        return reduce(cross_gram_values(tensors, pairs, CrossGram.of(options)), reduction, pairs, side)
    if type(batch_dims) is not int or batch_dims:
        weights, groups = fold_batches(weights, groups, batch_dims)
    views = weight_views(weights, groups)
    return reduce(soft_orthogonality_values(weights, views, options), reduction, views, side)


def srip(
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
) -> Tensor:
    """SRIP: the spectral norm of R = W W^T - I of every matrix, estimated by power iteration (arXiv 2411.00392).

    sigma = |x_m| / |x_(m-1)| with x_i = R x_(i-1); R is never formed.

    Args:
        weights, groups, batch_dims: as in `soft_orthogonality`.
        side: the Gram, one of the first four. The larger one has a null space in which R is -1: its sigma never falls
            below 1, and its gradient can be useless; it is there to reproduce code that uses it.
        iterations: m, the number of applications of R; the paper's 2 by default. More come closer to the norm.
        start: x_0, one `(groups, n)` tensor for each weight, n the order of its Gram, or `(B, n)` for a batch of B matrices;
            a constant, to which no gradient flows. A fresh Gaussian vector by default.
        generator: draws the fresh vectors; torch's default generator if None. That all processes draw the same ones is the
            caller's duty, and sharded weights need `start` or this. `OrthogonalityPenalty` has the same on all.
        gradient: `"through"`, the unrolled gradient, differentiates the whole iteration and is exact. `"envelope"`, the
            detached eigenvector, holds the last vector fixed; the exact gradient tends to it as the iteration converges.
        squared: sigma^2 instead (Bansal et al., NeurIPS 2018).
        reduction: `"sum"`, `"mean"` or `"none"`, as there.

    Returns:
        A float32 tensor (float64 where any weight is float64), differentiable once; NaN and Inf propagate.

    Raises:
        TypeError, ValueError: naming the weight and what was expected.
        RuntimeError: for a weight whose storage was freed; under `torch.func.vmap`, unless the torch backend serves.
    """
    options = checked(SRIP, reduction, side, iterations, gradient, squared)
    # Each process would draw its own start for a sharded weight, which is refused then.
    weights = as_list(weights, shards="refuse" if start is None and generator is None else "keep")
    if type(batch_dims) is not int or batch_dims:
        weights, groups = fold_batches(weights, groups, batch_dims)
    views = weight_views(weights, groups)
    values, _ = srip_values(weights, views, options, pack_start(start, weights, views, side, generator))
    return reduce(values, reduction, views, side)


# The same for weights that are checked: one value a matrix.


def soft_orthogonality_values(weights: list[Tensor], views: WeightViews, options: SO) -> Tensor:
    if not weights:
        return torch.zeros(0)
    penalties = serving_shards(views, options) if views.is_sharded else serving(views, options)
    return penalties.soft_orthogonality(weights, views, options)


def cross_gram_values(tensors: list[Tensor], views: PairViews, options: CrossGram) -> Tensor:
    """Of the weights and then the others."""
    if not tensors:
        return torch.zeros(0)
    return serving(views, options).cross_gram(tensors, views, options)


def srip_values(
    weights: list[Tensor], views: WeightViews, options: SRIP, start: Tensor, follow: bool = False
) -> tuple[Tensor, Tensor | None]:
    """From packed start vectors; with the normalized vectors with which the iteration ends, packed likewise, if `follow`."""
    if not weights:
        return torch.zeros(0), torch.zeros(0)
    penalties = serving_shards(views, options) if views.is_sharded else serving(views, options)
    return penalties.srip(weights, views, options, start, follow)


def reduce(values: Tensor, reduction: str, views: WeightViews, side: str) -> Tensor:
    """One number out of the values of all matrices, or (`none`) these; no matrices add up to 0."""
    if reduction == "none":
        return values
    if reduction == "entries" and len(values):
        values = values * views.inverse_entries(side)
    return values.mean() if reduction == "mean" and len(values) else values.sum()


def pack_start(
    start: Sequence[Tensor] | None,
    weights: Sequence[Tensor],
    views: WeightViews,
    side: str,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The start vectors of all matrices, packed: those given, or fresh Gaussian ones from one draw."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator; got {generator!r:.60}")
    if start is not None:
        start = start if isinstance(start, Tensor) else list(start)
        _check_start(start, weights, views, side)
        check_storage(start, [f"start[{index}]" for index in range(len(start))])
        return torch.cat([x.detach().reshape(-1).to(views.dtype) for x in start]) if start else torch.zeros(0)
    if ops.under_vmap(weights) and not isinstance(serving(views, SRIP(side)), TorchBackend):
        ops.refuse_vmap()  # before vmap has its word on random numbers
    own = views.device
    device = own if generator is None else generator.device
    return torch.randn(sum(views.orders(side)), dtype=views.dtype, device=device, generator=generator).to(own)


def as_list(weights: Sequence[Tensor], name: str = "weights", *, shards: str = "gather") -> list[Tensor]:
    """A list of its own.

    Args:
        shards: what becomes of sharded weights: `"gather"` takes them in full, `"keep"` what is here, `"refuse"` leaves
            them to the checks.
    """
    if isinstance(weights, Tensor):
        raise TypeError(f"{name} must be a list of tensors; got one tensor: wrap it, [weight]")
    if not isinstance(weights, Iterable):
        cure = "; OrthogonalityPenalty takes a module" if isinstance(weights, nn.Module) else ""
        raise TypeError(f"{name} must be a list of tensors; got a {type(weights).__name__}{cure}")
    weights = list(weights)
    transformed = not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()
    if shards == "refuse" or (not transformed and PLAIN.issuperset(map(type, weights))):
        return weights  # the usual answer comes first
    return full_tensors(weights) if shards == "gather" else shard_weights(weights)


def _check_start(start: Sequence[Tensor], weights: Sequence[Tensor], views: WeightViews, side: str) -> None:
    if isinstance(start, Tensor) or len(start) != len(weights):
        given = "one tensor" if isinstance(start, Tensor) else f"{len(start)} tensors"
        raise ValueError(
            f"start must be a list with one (groups, n) tensor a weight: got {given} for {len(weights)} weights"
        )
    for index, (vectors, weight, view) in enumerate(zip(start, weights, views.views, strict=True)):
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
