"""One panel of a figure as SVG text, and panels side by side as the page shows them.

A panel is a picture of its own, so that panels stand below each other where the page is narrow. Its colors are the
page's. Needs matplotlib, which is imported when the first panel is drawn, and no display.
"""

import hashlib
import html
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..palette import COLORS, RAMP, variable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, SOFT, AXIS, GRID = (COLORS[name][0] for name in ("ink", "soft", "axis", "grid"))
SETTINGS: Any = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "ortho_kernels",  # the same panel is the same text
    "font.size": 9,
    "axes.edgecolor": AXIS,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": SOFT,
    "axes.labelpad": 2,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.5,
    "lines.solid_capstyle": "round",
    "text.color": INK,
    "xtick.color": AXIS,
    "ytick.color": AXIS,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "xtick.major.width": 0.7,
}
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
DECIMALS = 2  # of coordinates, in points


@dataclass(frozen=True)
class Size:
    """In points, which are pixels where the panel is shown as large as it was meant."""

    name: str  # of the style sheet
    width: float
    height: float


SMALL = Size("small", 160, 112)
MEDIUM = Size("medium", 275, 180)
LARGE = Size("large", 350, 215)


@dataclass(frozen=True)
class Panel:
    title: str
    picture: str  # markup


def panel(title: str, size: Size, draw: "Callable[[Axes], None]") -> Panel:
    return Panel(title, svg(draw, size.width, size.height, title))


def side_by_side(panels: Sequence[Panel], size: Size, legend: str = "") -> str:
    """Markup of the panels, as many in a row as the page has room for; empty where there is none."""
    if not panels:
        return ""
    figures = "\n".join(
        f"<figure><figcaption>{html.escape(panel.title)}</figcaption>{panel.picture}</figure>" for panel in panels
    )
    return f'{legend}<div class="panels {size.name}">\n{figures}\n</div>\n'


def legend_of(items: Iterable[tuple[str, str]]) -> str:
    """Of markup and the words beside it."""
    entries = "".join(f"<li>{swatch}<span>{html.escape(text)}</span></li>" for swatch, text in items)
    return f'<ul class="legend">{entries}</ul>'


def ramp_swatch() -> str:
    return f'<span class="ramp" style="background: linear-gradient(90deg, {", ".join(RAMP)})"></span>'


def ramp(share: float) -> str:
    """The color so far along the ramp, from 0 to 1."""
    place = share * (len(RAMP) - 1)
    first = min(int(place), len(RAMP) - 2)
    ends = [[int(RAMP[i][j : j + 2], 16) for j in (1, 3, 5)] for i in (first, first + 1)]
    mixed = [round(a + (b - a) * (place - first)) for a, b in zip(*ends, strict=True)]
    return "#" + "".join(f"{value:02x}" for value in mixed)


def svg(draw: "Callable[[Axes], None]", width: float, height: float, title: str) -> str:
    """What `draw` does to the axes of a picture of that size."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # without pyplot, so no display and no global state

    with rc_context(SETTINGS):
        figure = Figure(figsize=(width / 72, height / 72))
        figure.patch.set_visible(False)
        small = width < MEDIUM.width
        left, right, bottom, top = (28, 4, 16, 5) if small else (42, 6, 30, 7)
        axes = figure.add_axes(
            (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height),
            facecolor="none",
        )
        _round_ticks(axes, 3 if small else 5)
        draw(axes)
        if small:
            axes.tick_params(labelsize=7.5)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _for_a_page(text.getvalue(), width, height, title)


def log_scale(axis: Any) -> None:
    """A log axis of few labels, whole powers of ten where it spans several."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes, name = axis.axes, axis.axis_name
    getattr(axes, f"set_{name}scale")("log")
    low, high = sorted(getattr(axes, f"get_{name}lim")())
    wide = high / low > 30
    axis.set_major_locator(LogLocator(numticks=5) if wide else LogLocator(subs=(1, 2, 5), numticks=7))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(power)


def power(value: float, _: Any = None) -> str:
    """A label of a log axis."""
    exponent = f"{value:.0e}".split("e")
    if 1e-3 <= value <= 1e4:
        return f"{value:,.10g}"
    digit = "" if exponent[0] == "1" else f"{exponent[0]}·"
    return f"{digit}10{str(int(exponent[1])).translate(SUPERSCRIPTS)}"


def _round_ticks(axes: "Axes", most: int) -> None:
    from matplotlib.ticker import MaxNLocator

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10], integer=axis is axes.xaxis))
        axis.set_major_formatter(lambda value, _: f"{value:,.10g}".replace("-", "−"))


def _for_a_page(text: str, width: float, height: float, title: str) -> str:
    """Matplotlib's picture as a part of a page: its colors the page's, its ids its own, its size left to the page."""
    body = text[text.index("<g id=") : text.rindex("</svg>")]
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r" font-family: [^;\"]*;?", "", body)
    body = re.sub(r"<[^>]*>", lambda tag: re.sub(r"-?\d+\.\d+", _rounded, tag[0]), body)  # not the labels
    referenced = set(re.findall(r"#([mp][0-9a-f]{10})\b", body))
    own = hashlib.sha256(body.encode()).hexdigest()[:6]
    body = re.sub(r' id="([^"]*)"', lambda found: f' id="{own}{found[1]}"' if found[1] in referenced else "", body)
    body = re.sub(r'((?:href="|url\()#)', rf"\g<1>{own}", body).replace("xlink:href", "href")
    body = re.sub(r"\s*\n\s*", " ", body).replace("> <", "><")
    for name, (light, _) in COLORS.items():
        body = body.replace(light, variable(name))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{html.escape(title)}" style="font-family: system-ui, sans-serif; stroke-linejoin: round">'
        f"{body}</svg>"
    )


def _rounded(found: re.Match[str]) -> str:
    return f"{round(float(found[0]), DECIMALS):g}"
