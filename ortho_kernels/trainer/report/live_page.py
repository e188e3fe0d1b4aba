"""Runs that may still train, as one HTML file that needs nothing beside it and loads itself anew."""

import html
import math
import time
from collections.abc import Sequence
from pathlib import Path

from . import plots
from .atomic_writing import write_atomically
from .lead import title_of
from .live_run import Curve, LiveRun, State, curves_of, labels_of
from .palette import variable
from .plots.looks import series, swatch
from .style import PAGE, STYLE
from .terminal import course, number

LIVE_STYLE = """
ul.runs { list-style: none; margin: 1.2rem 0 0; padding: 0; font: 14px/1.5 system-ui, sans-serif;
  font-variant-numeric: tabular-nums; }
ul.runs li { margin: .8rem 0; }
.bar { height: 4px; margin: .3rem 0; background: var(--line); border-radius: 2px; }
.bar div { height: 100%; border-radius: 2px; }
.state { font-weight: 600; }
.stalled, .stopped { color: var(--accent); }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr));
  gap: 1.6rem 2rem; margin: 2rem 0; }
.curves figure { margin: 0; }
.curves figcaption { display: flex; flex-wrap: wrap; gap: 0 .8rem; margin-bottom: .3rem; color: var(--ink);
  font: 600 14px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; }
.curves figcaption span:first-child { flex: 1 0 auto; }
.curves figcaption span + span { font-weight: 400; }
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
    for i, (run, label) in enumerate(zip(runs, labels_of(runs), strict=True)):
        look = series(i)
        name = f"{swatch(look)} <b>{html.escape(label)}</b> · " if len(runs) > 1 else ""
        share = 100 * min(1.0, run.step / run.steps) if run.steps else 100 * (run.state is State.FINISHED)
        items.append(
            f'<li>{name}<span class="state {run.state.value}">{run.state.value}</span> · '
            f"{html.escape(' · '.join(course(run)))}"
            f'<div class="bar"><div style="width: {share:.1f}%; background: {variable(look.series)}"></div></div></li>'
        )
    return "\n".join(items)


def _figures(runs: Sequence[LiveRun]) -> str:
    curves = curves_of(runs)
    if not curves:
        return '<p class="note">There is no row in metrics.csv yet.</p>'
    return "\n".join(_figure(curve, runs) for curve in curves)


def _figure(curve: Curve, runs: Sequence[LiveRun]) -> str:
    lasts = [
        f"<span>{swatch(series(i)) if len(runs) > 1 else ''} {number(values[-1])}</span>"
        for i, run in enumerate(runs)
        if len(values := run.curve(curve)[1])
    ]
    svg = plots.live_curve(curve, runs)
    return f"<figure><figcaption><span>{curve.title}</span>{''.join(lasts)}</figcaption>{svg}</figure>"
