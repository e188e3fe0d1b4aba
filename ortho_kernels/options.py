"""The options of each penalty, checked when they are made. `functional.py` says what they mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .weight_checks import is_count

SIDES = ("small", "large", "rows", "cols")
REDUCTIONS = ("sum", "mean", "none")
GRADIENTS = ("through", "envelope")


@dataclass(frozen=True)
class SO:
    """Soft orthogonality: `diagonal * sum_i R_ii^2 + off_diagonal * sum_(i != j) R_ij^2`, or its root if not `squared`."""

    side: str = "small"
    diagonal: float = 1.0
    off_diagonal: float = 1.0
    squared: bool = True

    def __post_init__(self) -> None:
        check_choice("side", self.side, SIDES)
        for name, factor in (("diagonal", self.diagonal), ("off_diagonal", self.off_diagonal)):
            if not 0 <= factor < math.inf:
                raise ValueError(f"{name} must be a finite number, 0 or more; got {factor!r}")


@dataclass(frozen=True)
class SRIP:
    """SRIP: sigma = |x_m| / |x_(m-1)| with x_i = R x_(i-1) and m = `iterations`, or sigma^2 if `squared`."""

    side: str = "small"
    iterations: int = 2
    gradient: str = "through"
    squared: bool = False

    def __post_init__(self) -> None:
        check_choice("side", self.side, SIDES)
        check_choice("gradient", self.gradient, GRADIENTS)
        if not is_count(self.iterations):
            raise ValueError(
                f"iterations must be a positive int, the number of applications of R; got {self.iterations!r}"
            )

    @property
    def pairs(self) -> int:
        """The applications of R through which the gradient goes."""
        return self.iterations if self.gradient == "through" else 1


PENALTIES: dict[str, type[SO] | type[SRIP]] = {"so": SO, "srip": SRIP}


def check_choice(name: str, given: str, accepted: Sequence[str]) -> None:
    if given not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}; got {given!r}")
