"""What `OrthogonalityPenalty.report()` returns: a row for each layer, and the table of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..spectra import effective_rank, singular_values
from ..weight_views import WeightView


@dataclass(frozen=True)
class LayerReport:
    """One weight: value (summed over its groups), gamma and spectrum (effective rank: the mean over its groups)."""

    name: str
    view: WeightView
    value: float
    gamma: float
    effective_rank: float
    largest: float
    smallest: float

    @classmethod
    def of(cls, name: str, weight: Tensor, view: WeightView, values: Tensor, gamma: float) -> LayerReport:
        """Takes an SVD of the weight, in float64 on the CPU."""
        spectrum = singular_values(weight.detach().reshape(view.shape))
        return cls(
            name=name,
            view=view,
            value=values.sum().item(),
            gamma=gamma,
            effective_rank=effective_rank(spectrum),
            largest=spectrum.max().item() if spectrum.numel() else 0.0,
            smallest=spectrum.min().item() if spectrum.numel() else 0.0,
        )

    @property
    def finite(self) -> bool:
        return math.isfinite(self.value) and math.isfinite(self.largest)


@dataclass(frozen=True)
class PenaltyReport:
    """The rows of `OrthogonalityPenalty.report()`; prints as a table."""

    kind: str
    gamma: Any  # as it was given
    rows: list[LayerReport]
    total: float  # weighted by gamma and the reduction
    uncovered: dict[str, str]  # the reason against every other parameter of two or more dimensions

    @property
    def non_finite(self) -> list[str]:
        """The layers that hold NaN or Inf."""
        return [row.name for row in self.rows if not row.finite]

    def __iter__(self) -> Iterator[LayerReport]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        width = max([len("layer"), *(len(row.name) for row in self.rows)])
        views = max([len("view"), *(len(str(row.view)) for row in self.rows)])
        lines = [
            f"{'layer':{width}}  {'view':>{views}}  {'value':>11}  {'gamma':>9}  {'eff. rank':>9}  {'largest':>9}"
            f"  {'smallest':>9}"
        ]
        lines += [
            f"{row.name:{width}}  {row.view!s:>{views}}  {row.value:11.4g}  {row.gamma:9.4g}  {row.effective_rank:9.1f}"
            f"  {row.largest:9.4g}  {row.smallest:9.4g}" + ("" if row.finite else "  <- NaN or Inf")
            for row in self.rows
        ]
        lines.append(f"{self.kind}: sum {sum(row.value for row in self.rows):.6g}, weighted {self.total:.6g}")
        if self.non_finite:
            lines.append(f"NaN or Inf in: {', '.join(self.non_finite)}")
        lines += [f"not covered: {name}, {reason}" for name, reason in self.uncovered.items()]
        return "\n".join(lines)
