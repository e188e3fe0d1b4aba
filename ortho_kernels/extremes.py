"""The extreme eigenvalues of W W^T, estimated by one power iteration each, as ABD-Net does. The Gram is never formed.

`reference.extreme_eigenvalues` has the formulas. On the CPU kernels four passes over W serve all matrices of all weights,
and the gradient, exact, is SRIP's backward operator: with two vectors x and x', y = G x, z = (G - l I) x', and the
Rayleigh quotients l of y and l' of z,

    dl  = q^T dG x + y^T dG y / |y|^2                with q = 2 (G y - l y) / |y|^2
    dl' = q'^T dG x' - (q'^T x') dl + z^T dG z / |z|^2   with q' = 2 (G z - l' z) / |z|^2

so that the gradient is a sum of terms (p x^T + x p^T) W.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import ops, reference
from .backends.registry import serving
from .fakes import orders as matrix_orders
from .options import ExtremeEigenvalues
from .weight_checks import check_storage
from .weight_views import ROWS, WeightViews


def extreme_eigenvalues(weights: list[Tensor], views: WeightViews, start: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The largest and the smallest eigenvalue of W W^T of every matrix, float64 of shape `(matrices,)`, differentiable once.

    Args:
        start: the vectors x and x' of each weight, `(groups, n, 2)`.
    """
    if not weights:
        return torch.zeros(0), torch.zeros(0)
    if serving(views, ExtremeEigenvalues()).name == "torch":
        check_storage(weights)
        with torch.autocast(views.device.type, enabled=False):
            return _defined(weights, views, start)
    packed = torch.cat([x.detach().reshape(-1, 2) for x in start]).to(views.dtype)
    return _Extremes.apply(views.groups, packed, *views.in_place(weights))


def _defined(weights: list[Tensor], views: WeightViews, start: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    pairs = [
        reference.extreme_eigenvalues(weight.reshape(view.shape), x)
        for weight, view, x in zip(weights, views.views, start, strict=True)
    ]
    largest, smallest = (torch.cat(each) for each in zip(*pairs, strict=True))
    return largest, smallest


class _Extremes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, groups: list[int], start: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        orders = matrix_orders(weights, groups, [ROWS] * len(groups))
        matrices = _Packed(orders)

        def product(x: Tensor) -> Tensor:
            return ops.gram_times_vectors(weights, groups, x)

        def scaled(x: Tensor) -> tuple[Tensor, Tensor]:
            """Vectors of length 1 in the dtype of the start, and what they were divided by; zero vectors as they are."""
            length = matrices.dot(x, x).sqrt()
            length = torch.where(length == 0, 1, length)
            return (x / matrices.spread(length)).to(start.dtype), length

        x, x2 = start.unbind(-1)
        x, x2 = x.contiguous(), x2.contiguous()
        y, y_length = scaled(product(x))
        Gy, yy = product(y), matrices.dot(y, y)
        largest = matrices.dot(y, Gy) / torch.where(yy == 0, 1, yy)
        z, z_length = scaled(product(x2) - matrices.spread(largest) * x2)
        Gz, zz = product(z), matrices.dot(z, z)
        smallest = torch.where(zz == 0, largest, matrices.dot(z, Gz) / torch.where(zz == 0, 1, zz))
        ctx.save_for_backward(x, y, y_length, Gy, largest, x2, z, z_length, Gz, smallest, *weights)
        ctx.groups, ctx.orders = groups, orders
        return largest, smallest

    @staticmethod
    def backward(ctx: Any, of_largest: Tensor, of_smallest: Tensor) -> tuple[Tensor | None, ...]:
        x, y, y_length, Gy, largest, x2, z, z_length, Gz, smallest, *weights = ctx.saved_tensors
        matrices = _Packed(ctx.orders)
        spread, dot = matrices.spread, matrices.dot
        yy, zz = (torch.where((own := dot(v, v)) == 0, 1, own) for v in (y, z))
        q = 2 * (Gy - spread(largest) * y) / spread(yy * y_length)
        q2 = 2 * (Gz - spread(smallest) * z) / spread(zz * z_length)
        no_z = dot(z, z) == 0  # smallest is then largest
        of_largest = of_largest + torch.where(no_z, of_smallest, -of_smallest * dot(q2, x2))
        of_smallest = torch.where(no_z, 0, of_smallest)
        a, b = spread(of_largest), spread(of_smallest)
        pairs = [a * q, x, spread(of_largest / yy) * y, y, b * q2, x2, spread(of_smallest / zz) * z, z]
        vectors = torch.stack([vector.to(x.dtype) for vector in pairs]).split(ctx.orders, dim=1)
        wanted = ctx.needs_input_grad[2:]
        gradients = ops.new_gradients(weights, wanted)
        ops.srip_backward(
            torch.ones_like(largest, dtype=x.dtype),
            weights,
            ctx.groups,
            [ROWS] * len(weights),
            torch.cat([own.reshape(-1) for own in vectors]),
            len(pairs) // 2,
            gradients,
            wanted,
            False,
        )
        remaining = iter(gradients)
        return None, None, *(next(remaining) if want else None for want in wanted)


class _Packed:
    """Vectors of matrices of these orders, one after the other; products of them in float64."""

    def __init__(self, orders: list[int]) -> None:
        self._orders = orders

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """One number a matrix."""
        products = a.double() * b
        if len(set(self._orders)) == 1:
            return products.view(len(self._orders), -1).sum(1)
        return torch.stack([own.sum() for own in products.split(self._orders)])

    def spread(self, values: Tensor) -> Tensor:
        """The number of its matrix for each entry."""
        return values.repeat_interleave(torch.tensor(self._orders), output_size=sum(self._orders))
