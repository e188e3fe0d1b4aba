"""Soft orthogonality of products of two thin matrices, such as LoRA's, of which no product is formed.

M = B D A, with B of `(out, r)`, A of `(r, in)`, and D a number or a diagonal matrix, has r singular values. Their squares
are the eigenvalues of P = (D A A^T D) (B^T B), which is r x r. So SO of order r, the sum of (lambda - 1)^2 over them, is
tr((P - I)^2). Its gradients are 4 D S D A with S = B^T B (P - I), and 4 B S with S = (P - I) D A A^T D. Near orthogonality
P - I is a small difference: therefore all r x r matrices are float64. It is plain torch, whatever backend serves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from .functional import as_list
from .options import REDUCTIONS, check_choice
from .reference import reduce
from .weight_checks import check_storage, check_weights
from .weight_views import compute_dtype

_ENTRIES = 2**20  # of the factors on one side that are computed together: 8 MB in float64

Product = tuple[Tensor, Tensor]
Scale = float | Tensor


def low_rank_soft_orthogonality(
    products: Sequence[Product], *, scale: Scale | Sequence[Scale] = 1.0, reduction: str = "sum"
) -> Tensor:
    """Soft orthogonality of every product M = scale B A, such as an adapter's of LoRA (Hu et al., arXiv 2106.09685).

    M is never formed. On a CPU, value and gradients took 1 to 2.5 times what SO of the factors took, for r of 8 and 64.

    Args:
        products: pairs (B, A) in the order in which they are multiplied, as LoRA's `(lora_B.weight, lora_A.weight)`: B of
            `(out, r)` and A of `(r, in)`, where r is at most `out` and `in`. Further dimensions of a convolution's factors
            count as columns. Dtypes and devices are those that `soft_orthogonality` takes; sharded factors are gathered.
        scale: LoRA's alpha / r, one number for all products or a list with one for each. A tensor `(r,)` in a number's
            place is a diagonal matrix between B and A, such as AdaLoRA's singular values; it may require a gradient.
        reduction: `"sum"`, `"mean"` over products, or `"none"`: one value a product.

    Returns:
        A float32 tensor (float64 where any factor is float64), differentiable twice; NaN and Inf propagate. The value is
        the one of order r: the sum of (s^2 - 1)^2 over the r largest singular values s of M. SO of M itself counts its
        min(out, in) - r zero singular values too, a constant of one each, without a gradient.

    Raises:
        TypeError, ValueError: naming the factor and what was expected.
        RuntimeError: for a factor whose storage was freed.
    """
    check_choice("reduction", reduction, REDUCTIONS)
    return reduce(low_rank_values(products, scale), reduction)


def low_rank_values(
    products: Sequence[Product], scale: Scale | Sequence[Scale] = 1.0, names: Sequence[tuple[str, str]] | None = None
) -> Tensor:
    """One value a product; errors call the factors by `names`, in pairs as they are."""
    products = _pairs(products)
    if names is None:
        names = [(f"B of products[{index}]", f"A of products[{index}]") for index in range(len(products))]
    factors = as_list([factor for pair in products for factor in pair])
    flat_names = [name for pair in names for name in pair]
    check_weights(factors, [1] * len(factors), flat_names)
    check_storage(factors, flat_names)
    lefts, rights = [B.flatten(1) for B in factors[::2]], [A.flatten(1) for A in factors[1::2]]
    for B, A, name in zip(lefts, rights, names, strict=True):
        _check_ranks(B, A, name)
    scales = _scales(scale, [len(A) for A in rights])
    values: dict[int, Tensor] = {}
    for indices in _alike(lefts, rights, scales):
        found = _values([lefts[i] for i in indices], [rights[i] for i in indices], [scales[i] for i in indices])
        values |= zip(indices, found.unbind(), strict=True)
    if not values:
        return torch.zeros(0)
    return torch.stack([values[index] for index in range(len(products))]).to(compute_dtype(factors))


def _values(lefts: list[Tensor], rights: list[Tensor], scales: list[Scale]) -> Tensor:
    """Of products of one shape, all with one number or each with a tensor as its scale."""
    P = _Grams.apply("rows", *rights)
    if isinstance(scales[0], Tensor):
        D = torch.stack([d.double() for d in scales if isinstance(d, Tensor)])
        P = D[:, :, None] * P * D[:, None, :]
    else:
        P = scales[0] ** 2 * P
    R = P @ _Grams.apply("cols", *lefts)
    R = R - torch.eye(R.shape[-1], dtype=R.dtype, device=R.device)
    return (R * R.mT).sum((-2, -1))


class _Grams(torch.autograd.Function):
    """W W^T (`rows`) or W^T W (`cols`) of matrices of one shape, in float64. The backward keeps the matrices as they are."""

    generate_vmap_rule = True

    @staticmethod
    def forward(side: str, *matrices: Tensor) -> Tensor:
        W = torch.stack(matrices).double()
        return W @ W.mT if side == "rows" else W.mT @ W

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.side = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        W = torch.stack(ctx.saved_tensors)
        dtype = compute_dtype(ctx.saved_tensors)  # in this product nothing cancels
        S = (incoming + incoming.mT).to(dtype)
        with torch.autocast(W.device.type, enabled=False):
            gradients = S @ W.to(dtype) if ctx.side == "rows" else W.to(dtype) @ S
        return None, *gradients.to(W.dtype).unbind()


def _alike(lefts: list[Tensor], rights: list[Tensor], scales: list[Scale]) -> Iterator[list[int]]:
    """The products that are computed together: of one shape, and few enough that float64 copies of them are small."""
    groups: dict[tuple, list[int]] = {}
    for index, (B, A, scale) in enumerate(zip(lefts, rights, scales, strict=True)):
        number = None if isinstance(scale, Tensor) else scale
        groups.setdefault((B.shape, B.dtype, A.shape, A.dtype, number), []).append(index)
    for indices in groups.values():
        entries = max(lefts[indices[0]].numel(), rights[indices[0]].numel())
        most = max(1, _ENTRIES // max(1, entries))
        yield from (indices[first : first + most] for first in range(0, len(indices), most))


def _pairs(products: Sequence[Product]) -> list[Product]:
    pairs = list(products) if isinstance(products, Iterable) and not isinstance(products, Tensor) else [products]
    if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs):
        raise TypeError("products must be a list of pairs (B, A), the factors of each product B A in this order")
    return [(B, A) for B, A in pairs]


def _check_ranks(B: Tensor, A: Tensor, names: tuple[str, str]) -> None:
    rank = len(A)
    shapes = f"{names[0]} is a {B.shape[0]} x {B.shape[1]} matrix, {names[1]} a {rank} x {A.shape[1]} one"
    if B.shape[1] != rank:
        raise ValueError(f"{shapes}: their product needs as many columns in the first as rows in the second")
    if rank > min(B.shape[0], A.shape[1]):
        raise ValueError(
            f"{shapes}: the rank {rank} is more than the order {min(B.shape[0], A.shape[1])} of their product; form "
            "that and call soft_orthogonality, or put the factors in the order in which they are multiplied"
        )


def _scales(scale: Scale | Sequence[Scale], ranks: list[int]) -> list[Scale]:
    """A float or a tensor `(r,)` for each product."""
    if isinstance(scale, Tensor) or not isinstance(scale, Iterable):
        scales: list[Scale] = [scale] * len(ranks)
    else:
        scales = list(scale)
        if len(scales) != len(ranks):
            raise ValueError(f"scale must be one number, or one a product: got {len(scales)} for {len(ranks)} products")
    for index, (given, rank) in enumerate(zip(scales, ranks, strict=True)):
        if isinstance(given, Tensor) and not given.is_complex():
            if tuple(given.shape) != (rank,):
                raise ValueError(
                    f"the scale of products[{index}] has shape {tuple(given.shape)}; expected a number or ({rank},)"
                )
        elif not isinstance(given, Real) or isinstance(given, bool):
            raise TypeError(
                f"the scale of products[{index}] must be a number or a real tensor ({rank},); got {given!r:.60}"
            )
    return [given if isinstance(given, Tensor) else float(given) for given in scales]
