"""The options of each penalty, checked when they are made. `functional.py` says what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from .weight_checks import is_count, is_number

SIDES = ("small", "large", "rows", "cols")
REDUCTIONS = ("sum", "mean", "none")
NORMS = ("fro", "l1", "l21", "max")
NORMALIZED = (None, "rows")
GRADIENTS = ("through", "envelope")


@dataclass(frozen=True)
class SO:
    """Soft orthogonality: `diagonal * sum_i R_ii^2 + off_diagonal * sum_(i != j) R_ij^2`, or its root if not `squared`.

    Or another `norm` of R, of the rows scaled to length 1 if `normalize` is `"rows"`.
    """

    kind: ClassVar[str] = "so"
    reductions: ClassVar[tuple[str, ...]] = ("sum", "mean", "entries", "none")

    side: str = "small"
    diagonal: float = 1.0
    off_diagonal: float = 1.0
    squared: bool = True
    norm: str = "fro"
    normalize: str | None = None

    def __post_init__(self) -> None:
        check_choice("side", self.side, (*SIDES, "both"))
        check_choice("norm", self.norm, NORMS)
        check_choice("normalize", self.normalize, NORMALIZED)
        check_choice("squared", self.squared, (True, False))
        for name, factor in (("diagonal", self.diagonal), ("off_diagonal", self.off_diagonal)):
            if not is_number(factor) or factor < 0:
                raise ValueError(f"{name} must be a finite number, 0 or more; got {factor!r}")
        if self.norm != "fro" and not self.squared:
            raise ValueError(f"squared=False goes with norm='fro' alone; got norm={self.norm!r}: leave squared out")
        if self.side == "both" and (self.norm != "fro" or not self.squared or self.diagonal != self.off_diagonal):
            raise ValueError(
                "side='both' goes with norm='fro', squared=True and equal diagonal and off_diagonal: else take side='rows' "
                f"and side='cols', and add; got norm={self.norm!r}, squared={self.squared!r}, diagonal={self.diagonal!r}, "
                f"off_diagonal={self.off_diagonal!r}"
            )

    @property
    def same_on_all_sides(self) -> bool:
        """Whether the gradients of all sides are the same, and their values differ by constants."""
        return self.norm == "fro" and self.diagonal == self.off_diagonal

    def check_entries(self) -> None:
        """Raises where a mean over the entries of R says nothing of the value."""
        for given, reason in (
            (self.norm == "max", "norm='max' takes one entry"),
            (not self.squared, "squared=False takes the root of a sum"),
            (self.side == "both", "side='both' adds Grams of two sizes: take side='rows' and side='cols', and add"),
        ):
            if given:
                raise ValueError(f"reduction='entries' is the mean over the entries of one Gram, and {reason}")


@dataclass(frozen=True)
class CrossGram:
    """A `norm` of the cross Gram A B^T of a weight and the other against which it is penalized.

    Of their rows scaled to length 1 if `normalize` is `"rows"`.
    """

    kind: ClassVar[str] = "against"

    norm: str = "fro"
    normalize: str | None = None

    @classmethod
    def of(cls, options: SO) -> CrossGram:
        """From the options that came with `against`; `ValueError` for one that a cross Gram doesn't have."""
        for name in ("side", "diagonal", "off_diagonal", "squared"):
            if (given := getattr(options, name)) != getattr(SO, name):
                raise ValueError(
                    f"{name}={given!r} doesn't go with against: a cross Gram A B^T has no sides, no identity and no root; "
                    f"leave {name} out"
                )
        return cls(options.norm, options.normalize)


@dataclass(frozen=True)
class SRIP:
    """SRIP: sigma = |x_m| / |x_(m-1)| with x_i = R x_(i-1) and m = `iterations`, or sigma^2 if `squared`."""

    kind: ClassVar[str] = "srip"
    reductions: ClassVar[tuple[str, ...]] = REDUCTIONS

    side: str = "small"
    iterations: int = 2
    gradient: str = "through"
    squared: bool = False

    def __post_init__(self) -> None:
        check_choice("side", self.side, SIDES)
        check_choice("gradient", self.gradient, GRADIENTS)
        check_choice("squared", self.squared, (True, False))
        if not is_count(self.iterations):
            raise ValueError(
                f"iterations must be a positive int, the number of applications of R; got {self.iterations!r}"
            )

    @property
    def pairs(self) -> int:
        """The applications of R through which the gradient goes."""
        return self.iterations if self.gradient == "through" else 1


@dataclass(frozen=True)
class OCNN:
    """Orthogonality of convolutions: ||Conv(K, K) - I||_F^2, or its root if not `squared`.

    Attributes:
        stride, padding: `(y, x)` of each weight.
        identity: the place `(y, x)` of the output that is held against the identity; the others are held against zero.
    """

    kind: ClassVar[str] = "convolution_orthogonality"
    reductions: ClassVar[tuple[str, ...]] = REDUCTIONS

    stride: tuple[tuple[int, int], ...]
    padding: tuple[tuple[int, int], ...]
    identity: tuple[tuple[int, int], ...]
    squared: bool = True

    def __post_init__(self) -> None:
        check_choice("squared", self.squared, (True, False))


@dataclass(frozen=True)
class ExtremeEigenvalues:
    """The largest and the smallest eigenvalue of W W^T, by one power iteration each."""

    kind: ClassVar[str] = "extreme_eigenvalues"


PENALTIES: dict[str, type[SO] | type[SRIP]] = {penalty.kind: penalty for penalty in (SO, SRIP)}


def check_reduction(reduction: str, options: SO | SRIP | OCNN, *, to_one: bool = False) -> None:
    """Raises where these options have no such reduction; `to_one` leaves out "none", which gives a value for each matrix."""
    check_choice("reduction", reduction, [name for name in options.reductions if not (to_one and name == "none")])
    if reduction == "entries" and isinstance(options, SO):
        options.check_entries()


def check_choice(name: str, given: object, accepted: Sequence[object]) -> None:
    if given not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}; got {given!r}")
