"""Runs that may still train, as one HTML file that needs nothing beside it and loads itself anew."""

import html
import itertools
import math
import time
from collections.abc import Sequence
from pathlib import Path

from . import plots
from .atomic_writing import write_atomically
from .lead import title_of
from .live_run import Curve, LiveRun, State, curves_of, labels_of
from .style import PAGE, STYLE
from .terminal import course, number

# Each color of the plots, and what it becomes where the reader prefers a dark page.
DARK = {
    "#22262e": "#e4e6eb",
    "#555c68": "#a2a9b6",
    "#9aa0aa": "#5d6470",
    "#e8eaee": "#2b2f37",
    **dict(zip(plots.COLORS, ("#a3abba", "#ee7d54", "#56b6d6", "#93c66b", "#bd93dd", "#e3b95c"), strict=True)),
}


def _variable(color: str) -> str:
    return f"var(--{color[1:]})"


def _variables(colors: Sequence[tuple[str, str]]) -> str:
    return " ".join(f"--{name[1:]}: {color};" for name, color in colors)


LIVE_STYLE = f"""
:root {{ {_variables([(color, color) for color in DARK])} }}
ul.runs {{ list-style: none; margin: 1.2rem 0 0; padding: 0; font: 14px/1.5 system-ui, sans-serif;
  font-variant-numeric: tabular-nums; }}
ul.runs li {{ margin: .8rem 0; }}
.bar {{ height: 4px; margin: .3rem 0; background: var(--line); border-radius: 2px; }}
.bar div {{ height: 100%; border-radius: 2px; }}
.state {{ font-weight: 600; }}
.stalled, .stopped {{ color: var(--accent); }}
.curves {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr));
  gap: 1.6rem 2rem; margin: 2rem 0; }}
.curves figure {{ margin: 0; }}
.curves svg {{ display: block; width: 100%; height: auto; }}
.curves figcaption {{ display: flex; flex-wrap: wrap; gap: 0 .8rem; margin-bottom: .3rem; color: var(--ink);
  font: 600 14px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; }}
.curves figcaption span:first-child {{ flex: 1; }}
@media (prefers-color-scheme: dark) {{
  :root {{ color-scheme: dark; --ink: #e4e6eb; --soft: #a2a9b6; --line: #343942; --paper: #16181d; --accent: #ee7d54;
    {_variables(list(DARK.items()))} }}
  body {{ background: #0e1013; }}
}}
"""


class LivePage:
    """The page of these runs in a file."""

    def __init__(self, path: Path, runs: Sequence[LiveRun]) -> None:
        self.path = path
        self.runs = runs
        self.drawn_of: list[tuple[int, bytes]] = []  # of which rows the figures are
        self.figures = ""

    def write(self, reload: float | None) -> None:
        """Whole or not at all; a browser loads it again every `reload` seconds, if any."""
        rows = [(len(table), table.last) for run in self.runs for table in (run.metrics, run.evaluations)]
        if rows != self.drawn_of:
            self.drawn_of, self.figures = rows, _figures(self.runs)
        write_atomically(self.path, self._render(reload))

    def _render(self, reload: float | None) -> str:
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        renewal = f"Loads itself anew every {reload:g} s." if reload else "It is renewed no longer."
        return PAGE.format(
            head=f'<meta http-equiv="refresh" content="{math.ceil(reload)}">\n' if reload else "",
            title=html.escape(title_of(labels_of(self.runs))),
            style=STYLE + LIVE_STYLE,
            lead=html.escape(" · ".join(run.place for run in self.runs)),
            alarms="",
            sections=f'<ul class="runs">{_items(self.runs)}</ul>\n<div class="curves">\n{self.figures}\n</div>\n'
            f'<p class="note">As of {now}. {renewal}</p>',
        )


def _items(runs: Sequence[LiveRun]) -> str:
    """A line and a bar for each run."""
    items = []
    for run, label, color in zip(runs, labels_of(runs), itertools.cycle(plots.COLORS)):
        name = f'<b style="color: {_variable(color)}">{html.escape(label)}</b> · ' if len(runs) > 1 else ""
        share = 100 * min(1.0, run.step / run.steps) if run.steps else 100 * (run.state is State.FINISHED)
        items.append(
            f'<li>{name}<span class="state {run.state.value}">{run.state.value}</span> · '
            f"{html.escape(' · '.join(course(run)))}"
            f'<div class="bar"><div style="width: {share:.1f}%; background: {_variable(color)}"></div></div></li>'
        )
    return "\n".join(items)


def _figures(runs: Sequence[LiveRun]) -> str:
    curves = curves_of(runs)
    if not curves:
        return '<p class="note">There is no row in metrics.csv yet.</p>'
    return "\n".join(_figure(curve, runs) for curve in curves)


def _figure(curve: Curve, runs: Sequence[LiveRun]) -> str:
    lasts = [
        f'<span style="color: {_variable(color)}">{number(values[-1])}</span>'
        for run, color in zip(runs, itertools.cycle(plots.COLORS))
        if len(values := run.curve(curve)[1])
    ]
    svg = plots.live_curve(curve, runs)
    svg = svg[svg.index("<svg") :].replace("#ffffff", "none")  # the page's own paper
    for color in DARK:
        svg = svg.replace(color, _variable(color))
    return f"<figure><figcaption><span>{curve.title}</span>{''.join(lasts)}</figcaption>{svg}</figure>"
