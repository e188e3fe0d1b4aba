"""The penalties as people batch them today, in plain torch and in libraries of symmetric products; differentiable scalars.

bucketed  the weights of one shape stacked, one batched product a shape
grouped   the weights of one order side by side, one grouped product an order (`torch._grouped_mm`: bfloat16 alone)
quack     the batches of `bucketed` by QuACK's symmetric product, which computes one triangle
emerging  each Gram by the symmetric product of Emerging-Optimizers, made for Newton-Schulz steps (bfloat16 alone)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
from torch import Tensor
from torch.nn.functional import pad

VECTOR = 8  # numbers of 16 bits in the 16 bytes at which grouped products and tensor descriptors want rows to begin


def wide(weight: Tensor) -> Tensor:
    """The weight as a matrix of its smaller side in rows."""
    W = weight.flatten(1)
    return W if W.shape[0] <= W.shape[1] else W.t()


def places_by_shape(matrices: Sequence[Tensor]) -> list[list[int]]:
    places = defaultdict(list)
    for place, W in enumerate(matrices):
        places[W.shape].append(place)
    return list(places.values())


def residual_squares(grams: Tensor) -> Tensor:
    """The sum of the squares of `grams - I`, for fresh Grams of any batch."""
    grams.diagonal(dim1=-2, dim2=-1).sub_(1)
    return grams.square().sum()


def bucketed_so(weights: Sequence[Tensor]) -> Tensor:
    matrices = [wide(weight) for weight in weights]
    values = []
    for places in places_by_shape(matrices):
        W = torch.stack([matrices[place] for place in places])
        values.append(residual_squares(torch.bmm(W, W.mT)))
    return torch.stack(values).sum()


def bucketed_sigmas(weights: Sequence[Tensor], start: Sequence[Tensor]) -> Tensor:
    matrices = [wide(weight) for weight in weights]
    values = []
    for places in places_by_shape(matrices):
        W = torch.stack([matrices[place] for place in places])
        v = torch.stack([start[place] for place in places])[..., None]
        u = torch.baddbmm(v, W, W.mT @ v, beta=-1)
        w = torch.baddbmm(u, W, W.mT @ u, beta=-1)
        values.append((torch.linalg.vector_norm(w, dim=1) / torch.linalg.vector_norm(u, dim=1)).sum())
    return torch.stack(values).sum()


def grouped_so(weights: Sequence[Tensor]) -> Tensor:
    by_order = defaultdict(list)
    for weight in weights:
        W = wide(weight)
        by_order[len(W)].append(pad(W, (0, -W.shape[1] % VECTOR)))
    values = []
    for matrices in by_order.values():
        W = torch.cat(matrices, dim=1)
        ends = _ends(tuple(each.shape[1] for each in matrices), W.device)
        values.append(residual_squares(torch._grouped_mm(W, W.t(), offs=ends)))
    return torch.stack(values).sum()


@cache
def _ends(depths: tuple[int, ...], device: torch.device) -> Tensor:
    """Where each matrix of a group ends: kept, since a copy to the GPU would wait for it in every step."""
    return torch.tensor(depths, dtype=torch.int32).cumsum(0, dtype=torch.int32).to(device)


class _SymmetricProduct(torch.autograd.Function):
    """The sum of the squares of W W^T - I by a library's product without a derivative; its gradient is 4 R W."""

    @staticmethod
    def forward(ctx, W: Tensor, gram: Callable[[Tensor], Tensor]) -> Tensor:
        R = gram(W)
        value = residual_squares(R)
        ctx.save_for_backward(R, W)
        return value

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        R, W = ctx.saved_tensors
        return (R @ W).mul_(4 * grad), None


def symmetric_so(weights: Sequence[Tensor], gram: Callable[[Tensor], Tensor], batched: bool) -> Tensor:
    """Soft orthogonality by a function that returns W W^T, of a batch of matrices or of one."""
    matrices = [pad(W, (0, -W.shape[1] % VECTOR)) for W in map(wide, weights)]
    if batched:
        matrices = [torch.stack([matrices[place] for place in places]) for places in places_by_shape(matrices)]
    return torch.stack([_SymmetricProduct.apply(W.contiguous(), gram) for W in matrices]).sum()


def quack_so() -> Callable[[Sequence[Tensor]], Tensor]:
    """Raises `ImportError` where QuACK is not there."""
    from quack.gemm_interface import gemm_symmetric

    return partial(symmetric_so, gram=lambda W: gemm_symmetric(W, W.mT), batched=True)


def emerging_so() -> Callable[[Sequence[Tensor]], Tensor]:
    """Raises `ImportError` where Emerging-Optimizers is not there."""
    from emerging_optimizers.triton_kernels import tsyrk_ex

    return partial(symmetric_so, gram=tsyrk_ex, batched=False)
