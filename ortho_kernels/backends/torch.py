"""The `torch` backend: the reference itself, on any device, with autograd's own gradients (of any order)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from .. import ops, reference
from ..options import OCNN, SO, SRIP, CrossGram
from ..pair_views import PairViews
from ..weight_checks import check_storage
from ..weight_views import ROWS, WeightViews, triangle
from .protocol import Backend, Into

_SIDES = ("rows", "cols")  # as the operators number them


class TorchBackend(Backend):
    name = "torch"
    device_type = None

    def reason_against(self, dtype: torch.dtype) -> str | None:
        return None

    def soft_orthogonality(self, weights: list[Tensor], views: WeightViews, options: SO) -> Tensor:
        return _call(reference.soft_orthogonality, weights, views.groups, options)

    def srip(
        self, weights: list[Tensor], views: WeightViews, options: SRIP, start: Tensor, follow: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        packed = zip(start.split(views.vector_sizes(options.side)), views.views, strict=True)
        vectors = [x.view(view.groups, view.order(options.side)) for x, view in packed]
        values = _call(reference.srip, weights, views.groups, options, start=vectors)
        if not follow:
            return values, None
        with torch.no_grad():
            starts = start.split(views.orders(options.side))
            matrices = zip(reference.matrices(weights, views.groups), starts, strict=True)
            last = [reference.iterate(W, x, options.side, options.iterations) for W, x in matrices]
        return values, torch.cat(last)

    def extreme_eigenvalues(self, weights: list[Tensor], views: WeightViews, start: list[Tensor]) -> Tensor:
        check_storage(weights)
        with torch.autocast(views.device.type, enabled=False):
            shaped = [weight.reshape(view.shape) for weight, view in zip(weights, views.views, strict=True)]
            values = [torch.stack(reference.extreme_eigenvalues(W, x)) for W, x in zip(shaped, start, strict=True)]
        return torch.cat(values, dim=1)

    def convolution_orthogonality(self, weights: list[Tensor], views: WeightViews, options: OCNN) -> Tensor:
        if views.device.type != "cuda" or torch.compiler.is_compiling():  # Dynamo can't trace what follows
            return _call(reference.convolution_orthogonality, weights, views.groups, options)
        cudnn = torch.backends.cudnn
        kept = {"enabled": cudnn.enabled, "benchmark": cudnn.benchmark, "deterministic": cudnn.deterministic}
        with cudnn.flags(**kept, allow_tf32=False):  # its default would round the products of which 1 is taken away
            return _call(reference.convolution_orthogonality, weights, views.groups, options)

    def soft_orthogonality_gradients(
        self, weights: list[Tensor], views: WeightViews, options: SO, into: Into
    ) -> Tensor:
        return write_by_autograd(into, weights, lambda leaves: self.soft_orthogonality(leaves, views, options))

    @torch.no_grad()
    def residuals(self, matrices: list[Tensor], views: WeightViews, sides: list[int]) -> Tensor:
        check_storage(matrices)
        triangles = []
        with torch.autocast(views.device.type, enabled=False):
            for W, side in zip(matrices, sides, strict=True):
                R = reference.residual(W.to(views.dtype), _SIDES[side])
                triangles.append(R[torch.tril_indices(*R.shape, device=R.device).unbind()])
        return torch.cat(triangles)

    @torch.no_grad()
    def multiply_residuals(
        self, matrices: list[Tensor], views: WeightViews, sides: list[int], K: Tensor, into: Into
    ) -> None:
        orders = [view.order(_SIDES[side]) for view, side in zip(views.views, sides, strict=True)]
        factors = into.factors(views)
        triangles = K.split(list(map(triangle, orders)))
        described = zip(matrices, sides, orders, triangles, factors, into.targets, strict=True)
        for W, side, n, lower, factor, target in described:
            if target is None:
                continue
            dense = lower.new_zeros(n, n)
            rows, cols = torch.tril_indices(n, n, device=W.device)
            dense[rows, cols] = dense[cols, rows] = lower
            with torch.autocast(views.device.type, enabled=False):
                W = W.to(views.dtype)
                gradient = 4 * factor * (dense @ W if side == ROWS else W @ dense)
            target.add_(gradient) if into.accumulate else target.copy_(gradient)

    def cross_gram(self, tensors: list[Tensor], views: PairViews, options: CrossGram) -> Tensor:
        check_storage(tensors, list(map(views.name, range(len(tensors)))))
        weights, others = views.split(tensors)
        return _call(reference.soft_orthogonality, weights, views.pair_groups, options, against=others)

    def cross_gram_gradients(self, tensors: list[Tensor], views: PairViews, options: CrossGram, into: Into) -> Tensor:
        return write_by_autograd(into, tensors, lambda leaves: self.cross_gram(leaves, views, options))

    def srip_gradients(
        self, weights: list[Tensor], views: WeightViews, options: SRIP, start: Tensor, into: Into, follow: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        last = None

        def compute(leaves: list[Tensor]) -> Tensor:
            nonlocal last
            values, last = self.srip(leaves, views, options, start, follow)
            return values

        return write_by_autograd(into, weights, compute), last


def _call(
    penalty: Callable[..., Tensor],
    weights: Sequence[Tensor],
    groups: list[int],
    options: SO | SRIP | CrossGram | OCNN,
    **tensors: Sequence[Tensor],
) -> Tensor:
    """Runs a function of `reference.py` as a float32 island: autocast would round the Grams of which R is the difference."""
    _warn_of_low_precision()
    check_storage(weights)
    with torch.autocast(device_type=weights[0].device.type, enabled=False):
        return penalty(weights, groups=groups, reduction="none", **asdict(options), **tensors)


def write_by_autograd(into: Into, weights: list[Tensor], compute: Callable[[list[Tensor]], Tensor]) -> Tensor:
    wanted = {ops.gradient_name(index): target for index, target in enumerate(into.targets) if target is not None}
    check_storage(wanted.values(), list(wanted))
    with torch.enable_grad():
        leaves = [w.detach().requires_grad_(t is not None) for w, t in zip(weights, into.targets, strict=True)]
        values = compute(leaves)
        inputs = [leaf for leaf in leaves if leaf.requires_grad]
        computed = torch.autograd.grad((into.factor * values).sum(), inputs) if inputs else ()
    with torch.no_grad():
        for target, gradient in zip(wanted.values(), computed, strict=True):
            target.add_(gradient) if into.accumulate else target.copy_(gradient)
    return values.detach()


_warned = False


def _warn_of_low_precision() -> None:
    global _warned
    if torch.compiler.is_compiling():  # Dynamo can't trace what follows
        return
    precision = torch.get_float32_matmul_precision()
    if precision != "highest" and not _warned:
        _warned = True
        warnings.warn(
            f"float32 matmul precision is {precision!r}: the torch backend's Grams follow it, and near orthogonality their "
            "penalty may be wrong by several percent (TF32) or several times (bfloat16). "
            "torch.set_float32_matmul_precision('highest') avoids that, and so do the kernels.",
            stacklevel=4,
        )
