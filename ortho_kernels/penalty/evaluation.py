"""The values of a model's weights and their gradients. Where a weight or a gradient has no storage, the error names it."""

from typing import Any

from torch import Tensor

from ..backends.protocol import Into
from ..functional import soft_orthogonality_values
from ..gradients import soft_orthogonality_gradients
from ..weight_checks import check_storage
from ..weight_views import WeightViews
from .start import Start


def penalty_values(
    start: Start | None, options: Any, names: tuple[str, ...], matrices: list[Tensor], views: WeightViews
) -> Tensor:
    """The differentiable penalty of every matrix: SRIP from a start, else SO."""
    try:
        if start is None:
            return soft_orthogonality_values(matrices, views, options)
        return start.values(matrices, views, options)
    except RuntimeError:
        check_storage(matrices, names)  # the operators know weights by their place alone
        raise


def penalty_gradients(
    start: Start | None, options: Any, names: tuple[str, ...], matrices: list[Tensor], views: WeightViews, into: Into
) -> Tensor:
    """As `penalty_values`, without a graph; the gradients go where `into` says."""
    try:
        if start is None:
            return soft_orthogonality_gradients(matrices, views, options, into)
        return start.values_and_gradients(matrices, views, options, into)
    except RuntimeError:
        check_storage(matrices, names)
        given = zip(names, into.targets, strict=True)
        targets = {f"{name}.grad": target for name, target in given if target is not None}
        check_storage(targets.values(), list(targets))
        raise
