"""What a backend is: a name, the device that it serves, why it can't where it can't, and the penalties.

The penalties take weights that are checked, their views, and options. They return one value a matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..options import OCNN, SO, SRIP, CrossGram, ExtremeEigenvalues
from ..pair_views import PairViews
from ..weight_views import WeightViews


class Into(NamedTuple):
    """Where gradients go: `factor` times each is written to its target, or added there.

    Attributes:
        targets: one tensor a weight; None where no gradient is wanted.
        factor: a number, or a tensor on the weights' device, for which nothing waits: one for all matrices, or one each.
        fit: whether the targets are `new_gradients`, one for each weight.
    """

    targets: Sequence[Tensor | None]
    factor: float | Tensor = 1.0
    accumulate: bool = False
    fit: bool = False

    def factors(self, views: WeightViews) -> Tensor:
        """The factor of each matrix, in the compute dtype, infinite where it is beyond it. Not to be changed in place."""
        if isinstance(self.factor, Tensor) and self.factor.dim() and self.factor.dtype is views.dtype:
            return self.factor
        return torch.ones(views.matrix_count, dtype=views.dtype, device=views.device).mul_(self.factor)


class Penalties(Protocol):
    """SO and SRIP of weights: what `OrthogonalityPenalty` needs, from a backend or from several ranks together."""

    def soft_orthogonality(self, weights: list[Tensor], views: WeightViews, options: SO) -> Tensor:
        """Differentiable values."""

    def srip(
        self, weights: list[Tensor], views: WeightViews, options: SRIP, start: Tensor, follow: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Likewise, from packed start vectors; and if `follow`, the normalized vectors with which the iteration ends."""

    def soft_orthogonality_gradients(
        self, weights: list[Tensor], views: WeightViews, options: SO, into: Into
    ) -> Tensor:
        """Values without a graph, and the gradients."""

    def srip_gradients(
        self, weights: list[Tensor], views: WeightViews, options: SRIP, start: Tensor, into: Into, follow: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Likewise."""


class Backend(Penalties, Protocol):
    name: str
    device_type: str | None  # None: any
    lacking: Sequence[str] = ()  # penalties that it lacks, and options that it has at their defaults alone

    def reason_against(self, dtype: torch.dtype) -> str | None:
        """Why it can't serve weights of this compute dtype on its device, or None if it can."""

    def lacks(self, options: SO | SRIP | CrossGram | OCNN | ExtremeEigenvalues) -> str | None:
        """The first of these options, as it was given, that it can't serve; None if it can serve all."""
        if isinstance(options, CrossGram | OCNN | ExtremeEigenvalues):
            return options.kind if options.kind in self.lacking else None
        for name in self.lacking:
            given = getattr(options, name, None)
            if given != getattr(type(options), name, None):
                return f"{name}={given!r}"
        return None

    def facts(self) -> dict[str, str]:
        """How it was built, for `doctor`."""
        return {}

    def cross_gram(self, tensors: list[Tensor], views: PairViews, options: CrossGram) -> Tensor:
        """Differentiable values of pairs: `tensors` are the weights, then the other of each."""

    def cross_gram_gradients(self, tensors: list[Tensor], views: PairViews, options: CrossGram, into: Into) -> Tensor:
        """Values without a graph, and the gradients of the weights, for which the others are constants."""

    def residuals(self, matrices: list[Tensor], views: WeightViews, sides: list[int]) -> Tensor:
        """The lower triangle of R on a side of each matrix, row by row, packed; without a graph. Weights without groups."""

    def multiply_residuals(
        self, matrices: list[Tensor], views: WeightViews, sides: list[int], K: Tensor, into: Into
    ) -> None:
        """The gradients 4 K W, or 4 W K on the side of the columns, of symmetric matrices K, packed as `residuals`."""

    def convolution_orthogonality(self, weights: list[Tensor], views: WeightViews, options: OCNN) -> Tensor:
        """Differentiable values."""

    def extreme_eigenvalues(self, weights: list[Tensor], views: WeightViews, start: list[Tensor]) -> Tensor:
        """The largest and the smallest of each W W^T, float64 of `(2, matrices)`, from `(groups, n, 2)` a weight."""
