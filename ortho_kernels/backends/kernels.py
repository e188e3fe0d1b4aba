"""The penalties by the operators of `ops.py`: what the backends with kernels have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from .. import ops, reference
from ..options import NORMS, OCNN, SO, SRIP, CrossGram
from ..pair_views import PairViews, pair_views
from ..weight_checks import check_storage
from ..weight_views import WeightViews, new_gradient
from .protocol import Backend, Into
from .torch import write_by_autograd


class KernelBackend(Backend):
    """Gradients without a graph are one forward operator, and one backward operator that writes where they belong.

    Attributes:
        operators: the functions of the operators' names.
    """

    operators: Any
    lacking: Sequence[str] = ("norm", "normalize", "against", "convolution_orthogonality", "extreme_eigenvalues")

    def operate(self, name: str, views: WeightViews, *arguments: Any) -> Any:
        """An operator of `ops.py`. `views` are those of the weights, for a backend that keeps more with them."""
        return getattr(self.operators, name)(*arguments)

    def soft_orthogonality(self, weights: list[Tensor], views: WeightViews, options: SO) -> Tensor:
        values, _, _ = self._norms(weights, views, options, ops.wants_gradient(weights))
        return values if options.squared else reference.square_root(values)

    def _norms(
        self, weights: list[Tensor], views: WeightViews, options: SO, keep: bool
    ) -> tuple[Tensor, Tensor, tuple[list[Tensor], list[int], list[int]]]:
        """The values before the root, and what was kept for the gradients of which weights, groups and sides.

        With squares and equal factors all sides have the same gradient, and the value follows from that of the small side.
        """
        by_constant = options.side != "small" and options.same_on_all_sides
        layout = (views.in_place(weights), views.groups, views.sides("small" if by_constant else options.side))
        given: tuple = (float(options.diagonal), float(options.off_diagonal), keep)
        if options.norm == "fro" and options.normalize is None:
            norms = ops.soft_orthogonality
        else:
            norms, given = ops.residual_norm, (NORMS.index(options.norm), *given)
            if options.normalize is not None:
                norms = ops.unit_rows_norm
        values, kept = norms(*layout, *given, route=ops.Route(self, views))
        return _on_side(values, views, options) if by_constant else values, kept, layout

    def srip(
        self, weights: list[Tensor], views: WeightViews, options: SRIP, start: Tensor, follow: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        values, kept = ops.srip(
            views.in_place(weights),
            views.groups,
            views.sides(options.side),
            start,
            options.iterations,
            options.gradient == "through",
            follow or ops.wants_gradient(weights),
            route=ops.Route(self, views),
        )
        last = ops.last_vectors(kept, views.orders(options.side), options.pairs) if follow else None
        return values.square() if options.squared else values, last

    def convolution_orthogonality(self, weights: list[Tensor], views: WeightViews, options: OCNN) -> Tensor:
        values, _ = ops.convolution_orthogonality(
            weights,
            views.groups,
            list(chain(*options.stride)),
            list(chain(*options.padding)),
            list(chain(*options.identity)),
            ops.wants_gradient(weights),
            route=ops.Route(self, views),
        )
        return values if options.squared else reference.square_root(values)

    def extreme_eigenvalues(self, weights: list[Tensor], views: WeightViews, start: list[Tensor]) -> Tensor:
        packed = torch.cat([x.detach().reshape(-1, 2) for x in start]).to(views.dtype)
        keep = ops.wants_gradient(weights)
        values, _ = ops.extreme_eigenvalues(
            views.in_place(weights), views.groups, packed, keep, route=ops.Route(self, views)
        )
        return values

    @torch.no_grad()
    def soft_orthogonality_gradients(
        self, weights: list[Tensor], views: WeightViews, options: SO, into: Into
    ) -> Tensor:
        values, kept, layout = self._norms(weights, views, options, True)
        factors = into.factors(views)
        if options.side == "both":
            factors = 2 * factors
        if not options.squared:
            values = reference.square_root(values)
            factors = torch.where(values == 0, 0, factors / (2 * values))
        given = (factors, *layout, kept, ops.backward_precision())
        backward = ops.soft_orthogonality_backward if options.normalize is None else ops.unit_rows_norm_backward
        _write_to(into, layout[0], views, partial(backward, *given, route=ops.Route(self, views)))
        return values

    @torch.no_grad()
    def residuals(self, matrices: list[Tensor], views: WeightViews, sides: list[int]) -> Tensor:
        layout = (views.in_place(matrices), views.groups, sides)
        _, R = ops.soft_orthogonality(*layout, 1.0, 1.0, True, route=ops.Route(self, views))
        return R

    @torch.no_grad()
    def multiply_residuals(
        self, matrices: list[Tensor], views: WeightViews, sides: list[int], K: Tensor, into: Into
    ) -> None:
        layout = (views.in_place(matrices), views.groups, sides)
        factors = into.factors(views)
        given = (factors, *layout, K, ops.backward_precision())
        write = partial(ops.soft_orthogonality_backward, *given, route=ops.Route(self, views))
        _write_to(into, layout[0], views, write)

    def cross_gram(self, tensors: list[Tensor], views: PairViews, options: CrossGram) -> Tensor:
        if options.normalize == "rows":
            tensors = _unit_rows([tensor.to(views.dtype).flatten(1) for tensor in tensors])
            tensors, views = pair_views(*views.split(tensors), views.pair_groups)
        weights, others = views.split(views.in_place(tensors))
        keep, norm = ops.wants_gradient(tensors), NORMS.index(options.norm)
        values, _ = ops.cross_gram(weights, others, views.pair_groups, norm, keep, route=ops.Route(self, views))
        return values

    def cross_gram_gradients(self, tensors: list[Tensor], views: PairViews, options: CrossGram, into: Into) -> Tensor:
        if options.normalize is not None:
            return write_by_autograd(into, tensors, lambda leaves: self.cross_gram(leaves, views, options))
        with torch.no_grad():
            tensors = views.in_place(tensors)
            layout = (*views.split(tensors), views.pair_groups)
            route = ops.Route(self, views)
            values, kept = ops.cross_gram(*layout, NORMS.index(options.norm), True, route=route)
            factors = torch.ones_like(values).mul_(into.factor)
            write = partial(ops.cross_gram_backward, factors, *layout, kept, ops.backward_precision(), route=route)
            _write_to(into, tensors, views, write)
        return values

    @torch.no_grad()
    def srip_gradients(
        self, weights: list[Tensor], views: WeightViews, options: SRIP, start: Tensor, into: Into, follow: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        layout = (views.in_place(weights), views.groups, views.sides(options.side))
        through = options.gradient == "through"
        route = ops.Route(self, views)
        values, kept = ops.srip(*layout, start, options.iterations, through, True, route=route)
        factors = (2 * values).mul_(into.factor) if options.squared else into.factors(views)
        write = partial(ops.srip_backward, factors, *layout, kept, options.pairs, route=route)
        _write_to(into, layout[0], views, write)
        last = ops.last_vectors(kept, views.orders(options.side), options.pairs) if follow else None
        return values.square() if options.squared else values, last


def _unit_rows(Ws: list[Tensor]) -> list[Tensor]:
    """Those of one shape are scaled together: many small ones, such as LoRA's factors, take few operations."""
    alike: dict[tuple, list[int]] = {}
    for index, W in enumerate(Ws):
        alike.setdefault((W.shape, W.requires_grad), []).append(index)
    scaled = list(Ws)
    for indices in alike.values():
        units = reference.unit_rows(torch.stack([Ws[index] for index in indices])).unbind()
        for index, unit in zip(indices, units, strict=True):
            scaled[index] = unit
    return scaled


def _on_side(values: Tensor, views: WeightViews, options: SO) -> Tensor:
    """From the values of the small side, with equal factors.

    Each eigenvalue -1 of the larger Gram's null space adds its square.
    """
    if options.side == "both":
        return (views.null_space("large") * float(options.diagonal)).add(values, alpha=2)
    return values.add(views.null_space(options.side), alpha=float(options.diagonal))


def _write_to(into: Into, weights: list[Tensor], views: WeightViews, write: Callable[..., None]) -> None:
    """Calls `write(gradients, wanted, accumulate)` with the targets.

    In the place of one that the kernels can't write to (in another memory format or dtype than its weight, or that of a
    weight listed twice) they get a tensor of its own, which is added or copied to it.
    """
    if into.fit or views.fit_gradients(into.targets):
        return write(list(into.targets), [True] * len(weights), into.accumulate)
    gradients: list[Tensor] = []
    apart: list[tuple[Tensor, Tensor]] = []
    seen: set[int] = set()
    for index, (weight, target) in enumerate(zip(weights, into.targets, strict=True)):
        if target is None:
            continue
        if (target.stride(), target.dtype) != views.gradient_forms[index] or id(target) in seen:
            check_storage([target], [ops.gradient_name(index)])
            apart.append((target, target := new_gradient(weight).zero_()))
        seen.add(id(target))
        gradients.append(target)
    write(gradients, [target is not None for target in into.targets], into.accumulate)
    for target, computed in apart:
        target.add_(computed) if into.accumulate else target.copy_(computed)
