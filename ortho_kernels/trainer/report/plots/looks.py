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
OF_PENALTY = ("baseline", "so", "srip", "decay")  # have the same colors in every report


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

    The penalty has the color, and the method the dashes, or gamma where there is one method. Where that is not enough
    to tell the groups apart, they take the colors in turn.
    """
    penalties = [_penalty(group) for group in groups]
    order = list(dict.fromkeys([*OF_PENALTY, *penalties]))
    variants = _variants(groups, penalties)
    if len(order) <= len(SERIES) and max(variants, default=0) < len(DASHES):
        found = [Look(SERIES[order.index(name)], variant) for name, variant in zip(penalties, variants, strict=True)]
        if len(set(found)) == len(found):
            return found
    return [series(i) for i in range(len(groups))]


def _variants(groups: Sequence[Group], penalties: Sequence[str]) -> list[int]:
    """Which method it is; of a single method, which gamma of its penalty."""
    methods = [group.settings.get("method.name") for group in groups]
    if len(set(methods)) > 1:
        return [list(dict.fromkeys(methods)).index(method) for method in methods]
    gammas: dict[str, set[float]] = {}
    for group, penalty in zip(groups, penalties, strict=True):
        gammas.setdefault(penalty, set()).add(group.gamma or 0.0)
    return [sorted(gammas[name]).index(group.gamma or 0.0) for group, name in zip(groups, penalties, strict=True)]


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
        f'<svg class="swatch" viewBox="0 0 28 12" aria-hidden="true" style="stroke: {color}; fill: {color}">'
        f'<path d="M0 6 H28" stroke-width="2"{dashes}/>{SHAPES[look.marker] if marked else ""}</svg>'
    )


def _penalty(group: Group) -> str:
    return "baseline" if group.is_baseline else str(group.settings.get("penalty.name"))
