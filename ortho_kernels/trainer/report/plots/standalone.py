"""Panels as one SVG file, for a page that does not bring our style sheet, such as a document on the web."""

import html
from collections.abc import Sequence

from ..palette import variable, variables
from .looks import Look, swatch
from .panels import Panel, Size

GAP, TITLE, LEGEND = 14, 18, 22  # points


def standalone(
    rows: Sequence[tuple[str, Sequence[Panel]]], size: Size, legend: Sequence[tuple[Look, str]], note: str
) -> str:
    """Rows of panels, each row under its heading if it has one, below the legend and a note.

    Colors follow the reader's light or dark mode.
    """
    columns = max(len(panels) for _, panels in rows)
    width = columns * (size.width + GAP) + GAP
    parts, y = [_legend(legend, note)], float(LEGEND)
    for heading, panels in rows:
        if heading:
            parts.append(_text(GAP, y + 13, heading, 13, 700))
            y += TITLE
        for column, panel in enumerate(panels):
            x = GAP + column * (size.width + GAP)
            parts.append(_text(x, y + 12, panel.title, 10, 600))
            place = f'<svg x="{x:g}" y="{y + TITLE:g}" width="{size.width:g}" height="{size.height:g}" '
            parts.append(panel.picture.replace("<svg ", place, 1))
        y += TITLE + size.height + GAP
    style = (
        f"svg {{ {variables(dark=False)} }} @media (prefers-color-scheme: dark) {{ svg {{ {variables(dark=True)} }} }}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {y:g}" width="{width:g}" height="{y:g}" '
        f'font-family="system-ui, sans-serif"><style>{style}</style>'
        f'<rect width="100%" height="100%" style="fill: {variable("paper")}"/>{"".join(parts)}</svg>\n'
    )


def _legend(entries: Sequence[tuple[Look, str]], note: str) -> str:
    parts, x = [], float(GAP)
    for look, label in entries:
        parts.append(swatch(look).replace("<svg ", f'<svg x="{x:g}" y="6" width="28" height="12" ', 1))
        parts.append(_text(x + 34, 16, label, 11, 400))
        x += 54 + 6.5 * len(label)
    return "".join([*parts, _text(x, 16, note, 11, 400)])


def _text(x: float, y: float, text: str, size: int, weight: int) -> str:
    fill = f"fill: {variable('ink')}"
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}" style="{fill}">{html.escape(text)}</text>'
    )
