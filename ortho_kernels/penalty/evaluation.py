"""The values of a model's weights and their gradients. Where a weight or a gradient has no storage, the error names it."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from ..backends.protocol import Into, Penalties
from ..backends.registry import serving
from ..distributed.replicated.sharing import Sharing
from ..distributed.sharded.serving import serving_shards
from ..weight_checks import check_storage
from ..weight_views import WeightViews
from .start import Start


class Weights(NamedTuple):
    """All covered weights at one moment: the tensors that the model holds, and the matrices that the functions take."""

    parameters: list[Tensor]
    matrices: list[Tensor]
    views: WeightViews


def penalty_values(
    start: Start | None,
    options: Any,
    names: tuple[str, ...],
    matrices: list[Tensor],
    views: WeightViews,
    sharing: Sharing | None = None,
) -> Tensor:
    """The differentiable penalty of every matrix: SRIP from a start, else SO. A collective if there is a sharing."""
    penalties = _penalties(options, names, matrices, views, sharing)
    try:
        if start is None:
            return penalties.soft_orthogonality(matrices, views, options)
        return start.values(matrices, views, options, penalties)
    except RuntimeError:
        check_storage(matrices, names)  # the operators know weights by their place alone
        raise


def penalty_gradients(
    start: Start | None,
    options: Any,
    names: tuple[str, ...],
    matrices: list[Tensor],
    views: WeightViews,
    into: Into,
    sharing: Sharing | None = None,
) -> Tensor:
    """As `penalty_values`, without a graph; the gradients go where `into` says."""
    penalties = _penalties(options, names, matrices, views, sharing)
    try:
        if start is None:
            return penalties.soft_orthogonality_gradients(matrices, views, options, into)
        return start.values_and_gradients(matrices, views, options, into, penalties)
    except RuntimeError:
        check_storage(matrices, names)
        given = zip(names, into.targets, strict=True)
        targets = {f"{name}.grad": target for name, target in given if target is not None}
        check_storage(targets.values(), list(targets))
        raise


def _penalties(
    options: Any, names: tuple[str, ...], matrices: list[Tensor], views: WeightViews, sharing: Sharing | None
) -> Penalties:
    if sharing is not None:
        return sharing.penalties(names, matrices, views, options)
    return serving_shards(views, options) if views.is_sharded else serving(views, options)
