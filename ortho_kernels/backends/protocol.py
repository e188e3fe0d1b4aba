"""What a backend is: a name, the device that it serves, why it can't where it can't, and the penalties.

The penalties take weights that are checked, their views, and options. They give one value a matrix, differentiable, or
write gradients: to `targets`, one tensor or None a weight, `factor` times the gradient, added there if `accumulate`.
`factor` is a number, or a tensor that stays on its device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..options import SO, SRIP
from ..weight_views import WeightViews

Targets = Sequence[Tensor | None]


class Backend(Protocol):
    name: str
    device_type: str | None  # None: any

    def reason_against(self, dtype: torch.dtype) -> str | None:
        """Why it can't serve weights of this compute dtype on its device, or None if it can."""

    def facts(self) -> dict[str, str]:
        """How it was built, for `doctor`."""
        return {}

    def soft_orthogonality(self, weights: list[Tensor], views: WeightViews, options: SO) -> Tensor: ...

    def srip(
        self, weights: list[Tensor], views: WeightViews, options: SRIP, start: Tensor, follow: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """From packed start vectors; with them, to `follow`, the normalized vectors with which the iteration ends."""

    def soft_orthogonality_gradients(
        self,
        weights: list[Tensor],
        views: WeightViews,
        options: SO,
        targets: Targets,
        factor: float | Tensor,
        accumulate: bool,
    ) -> Tensor: ...

    def srip_gradients(
        self,
        weights: list[Tensor],
        views: WeightViews,
        options: SRIP,
        start: Tensor,
        targets: Targets,
        factor: float | Tensor,
        accumulate: bool,
        follow: bool = False,
    ) -> tuple[Tensor, Tensor | None]: ...
