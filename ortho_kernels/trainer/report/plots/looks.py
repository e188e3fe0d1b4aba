"""How a group looks in every figure: its color, its dashes, its marker; and the legend."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..groups import Group
from ..palette import COLORS, SERIES, variable
from .panels import legend_of

DASHES = ((), (5.0, 2.0), (1.5, 1.5), (6.0, 1.8, 1.5, 1.8))  # on, off, in widths of the line
MARKERS = ("o", "s", "^", "D")
SHAPES = {
    "o": '<circle cx="14" cy="6" r="3"/>',
    "s": '<rect x="11" y="3" width="6" height="6"/>',
    "^": '<path d="M10.5 9 L14 2.5 L17.5 9 z"/>',
    "D": '<path d="M14 2 L18 6 L14 10 L10 6 z"/>',
}
OF_PENALTY = {"baseline": 0, "so": 1, "srip": 2, "decay": 3}  # the same color in every report


@dataclass(frozen=True)
class Look:
    series: str  # name of the color
    variant: int = 0

    @property
    def color(self) -> str:
        return COLORS[self.series][0]

    @property
    def marker(self) -> str:
        return MARKERS[self.variant % len(MARKERS)]

    def line(self, alone: bool = False) -> dict[str, Any]:
        """Options of a plot; `alone`: one run of several, thin behind their mean."""
        dash = DASHES[self.variant % len(DASHES)]
        style: dict[str, Any] = {"color": self.color, "linestyle": (0, dash) if dash else "-"}
        return {**style, "linewidth": 0.7, "alpha": 0.45} if alone else style


def looks(groups: Sequence[Group]) -> list[Look]:
    """One for each group, in which no two agree up to 32 groups.

    Where method and penalty say which group it is, the penalty has the color and the method the dashes.
    """
    pairs = [_method_and_penalty(group) for group in groups]
    methods = list(dict.fromkeys(method for method, _ in pairs))
    penalties = sorted({penalty for _, penalty in pairs}, key=lambda name: OF_PENALTY.get(name, len(OF_PENALTY)))
    if len(set(pairs)) == len(pairs) and len(penalties) <= len(SERIES) and len(methods) <= len(DASHES):
        others = [name for name in penalties if name not in OF_PENALTY]
        place = {**OF_PENALTY, **{name: len(OF_PENALTY) + i for i, name in enumerate(others)}}
        return [Look(SERIES[place[penalty] % len(SERIES)], methods.index(method)) for method, penalty in pairs]
    return [series(i) for i in range(len(groups))]


def series(i: int) -> Look:
    """The look of the i-th of any sequence."""
    return Look(SERIES[i % len(SERIES)], i // len(SERIES))


def legend(groups: Sequence[Group], marked: bool = False, said: Callable[[Group], str] | None = None) -> str:
    """`said`: what is said of a group behind its label, if anything."""
    names = [", ".join(filter(None, [text(group), said(group) if said else ""])) for group in groups]
    return legend_of((swatch(look, marked), name) for look, name in zip(looks(groups), names, strict=True))


def text(group: Group) -> str:
    """Its label, and how many runs it has if that is more than one."""
    return f"{group.label} ({len(group.runs)} runs)" if len(group.runs) > 1 else group.label


def swatch(look: Look, marked: bool = False) -> str:
    """A piece of its curve."""
    color = variable(look.series)
    dash = DASHES[look.variant % len(DASHES)]
    dashes = f' stroke-dasharray="{" ".join(f"{2 * length:g}" for length in dash)}"' if dash else ""
    return (
        f'<svg viewBox="0 0 28 12" aria-hidden="true" style="stroke: {color}; fill: {color}">'
        f'<path d="M0 6 H28" stroke-width="2"{dashes}/>{SHAPES[look.marker] if marked else ""}</svg>'
    )


def _method_and_penalty(group: Group) -> tuple[str, str]:
    penalty = "baseline" if group.is_baseline else str(group.settings.get("penalty.name"))
    return str(group.settings.get("method.name")), penalty
