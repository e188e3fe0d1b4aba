"""Runs that train, as a picture of characters that fits its window."""

import math
from collections.abc import Sequence

import numpy as np

from .characters import Grid, polyline, shortened, text_width
from .collapse import LEAST_SPREAD
from .decimation import Floats, decimate
from .live_run import Curve, LiveRun, State, curves_of, labels_of, steps_of

# SGR codes. The terminal's own colors, since they suit its background.
BOLD, DIM, ALARM = "1", "2", "1;31"
COLORS = ("36", "33", "35", "32", "34", "31")
STATES = {
    State.STARTING: "36",
    State.TRAINING: "32",
    State.STALLED: "33",
    State.EVALUATING: "36",
    State.STOPPED: "31",
    State.FINISHED: "32",
}
GUTTER = 8  # columns left of a curve, for the values at its axis
LEAST_WIDTH, LEAST_HEIGHT = 24, 5  # of a panel: below that, the last curves are left out
BEST_RATIO = 4.0  # of a panel's width to its height, in characters
GAP = 2  # columns between panels
LEAST_TITLE = 10  # columns of a panel's title; the last values take the rest


def draw(runs: Sequence[LiveRun], width: int, height: int, colors: bool, ascii_only: bool) -> list[str]:
    """The lines of the picture: at most `height`, none wider than `width`."""
    grid = Grid(width, height, ascii_only)
    row = _one_header(grid, runs[0]) if len(runs) == 1 else _many_headers(grid, runs, colors)
    _panels(grid, runs, row + 1, colors)
    return grid.lines(colors)


def _one_header(grid: Grid, run: LiveRun) -> int:
    """Label and state, a bar, figures; returns the row after them."""
    state = f"● {run.state.value}"
    grid.put(grid.width - len(state), 0, state, STATES[run.state])
    room = grid.width - len(state) - 2
    column = grid.put(0, 0, shortened(run.label, room), BOLD)
    grid.put(column + 2, 0, shortened(run.place, max(1, room - column - 2)), DIM)
    if run.steps:
        done = round(grid.width * min(1.0, run.step / run.steps))
        grid.put(0, 1, "━" * done, STATES[run.state])
        grid.put(done, 1, "─" * (grid.width - done), DIM)
    grid.put(0, 2, shortened(" · ".join(course(run)), grid.width))
    return 3


def _many_headers(grid: Grid, runs: Sequence[LiveRun], colors: bool) -> int:
    """A line a run, with the color or the letter of its curves; returns the row after them."""
    labels = labels_of(runs)
    room = max(12, min(max(map(text_width, labels)), grid.width // 2 - 16))
    shown = max(1, min(len(runs), grid.height // 3))
    for i, run in enumerate(runs[:shown]):
        grid.put(0, i, "━━" if colors else _letter(i), _color(i))
        grid.put(3, i, shortened(labels[i], room), BOLD)
        column = grid.put(4 + room, i, f"{run.state.value:<10} ", STATES[run.state])
        column = grid.put(column, i, shortened(" · ".join(course(run)), max(1, grid.width - column)))
        grid.put(column + 2, i, shortened(run.place, max(1, grid.width - column - 2)), DIM)
    if shown < len(runs):
        grid.put(0, shown, f"and {len(runs) - shown} more", DIM)
        return shown + 1
    return shown


def course(run: LiveRun) -> list[str]:
    """What is known about how far a run is, the most important first."""
    steps = f" of {run.steps:,} ({run.step / run.steps:.0%})" if run.steps else ""
    figures = [f"step {run.step:,}{steps}"]
    if (left := run.seconds_left()) is not None:
        figures.append(f"{duration(left)} left")
    if (so_far := run.seconds_so_far()) is not None:
        start = run.progress.get("start")
        since = f"since step {start:,}" if start else "in all" if run.state is State.FINISHED else "so far"
        figures.append(f"{duration(so_far)} {since}")
    if len(speeds := run.metrics.column("images_per_second")):
        figures.append(f"{speeds[-1]:,.0f} images/s")
    return figures


def _panels(grid: Grid, runs: Sequence[LiveRun], top: int, colors: bool) -> None:
    curves = curves_of(runs)
    height = grid.height - top
    if not curves:
        grid.put(0, top, "There is no row in metrics.csv yet.", DIM)
        return
    columns, rows = _arrangement(len(curves), grid.width + GAP, height)
    across = np.linspace(0, grid.width + GAP, columns + 1).astype(int)
    downward = np.linspace(top, grid.height, rows + 1).astype(int)
    for i, curve in enumerate(curves[: columns * rows]):
        down, right = divmod(i, columns)
        _panel(
            grid,
            runs,
            curve,
            column=across[right],
            row=downward[down],
            width=across[right + 1] - across[right] - GAP,
            height=downward[down + 1] - downward[down],
            colors=colors,
        )


def _arrangement(count: int, width: int, height: int) -> tuple[int, int]:
    """Columns and rows of panels: of those that show the most of them, the one whose panels have the best shape."""
    most_columns, most_rows = max(1, width // (LEAST_WIDTH + GAP)), max(1, height // LEAST_HEIGHT)
    best, found = (-1, 0.0), (1, 1)
    for columns in range(1, most_columns + 1):
        rows = min(most_rows, math.ceil(count / columns))
        ratio = (width / columns) / max(1, height / rows)
        quality = min(count, columns * rows), -abs(math.log(ratio / BEST_RATIO))
        if quality > best:
            best, found = quality, (columns, rows)
    return found


def _panel(
    grid: Grid,
    runs: Sequence[LiveRun],
    curve: Curve,
    column: int,
    row: int,
    width: int,
    height: int,
    colors: bool,
) -> None:
    plotted = [run.curve(curve) for run in runs]
    _title(grid, curve, [ys for _, ys in plotted], column, row, width)
    left, across, down = column + GUTTER, width - GUTTER, height - 2
    if down < 1:
        return
    first, last = steps_of(runs)
    low, high = limits(np.concatenate([ys for _, ys in plotted]), curve.from_zero)
    for y in range(down):
        grid.put(left - 1, row + 1 + y, "│", DIM)
    _axis_values(grid, low, high, left, row + 1, down)
    grid.put(left - 1, row + 1 + down, "└" + "─" * across, DIM)
    start, end = f" {first:,.0f} ", f" {last:,.0f}"
    grid.put(left, row + 1 + down, start, DIM)
    if len(start) + len(end) < across:
        grid.put(left + across - len(end), row + 1 + down, end, DIM)
    if curve.column == "spread" and low < LEAST_SPREAD < high:
        y = down - 1 - int((LEAST_SPREAD - low) / (high - low) * (4 * down - 1)) // 4
        grid.put(left, row + 1 + y, "·" * across, DIM)
    wide, tall = 2 * across, 4 * down
    for i, (xs, ys) in enumerate(plotted):
        xs, ys = decimate(xs, ys, wide)
        columns = (xs - first) / (last - first or 1.0) * (wide - 1)
        dots = polyline(columns, (ys - low) / (high - low) * (tall - 1), wide, tall)
        grid.dots(left, row + 1, dots, _color(i), None if colors or len(runs) == 1 else _letter(i))


def _title(grid: Grid, curve: Curve, values: Sequence[Floats], column: int, row: int, width: int) -> None:
    """And the last value of each run, as far as there is room."""
    right = column + width
    for i, value in reversed([(i, ys[-1]) for i, ys in enumerate(values) if len(ys)]):
        text = number(value)
        if right - len(text) < column + LEAST_TITLE:
            break
        right -= len(text)
        collapsed = curve.column == "spread" and value < LEAST_SPREAD
        grid.put(right, row, text, ALARM if collapsed else _color(i))
        right -= 1
    grid.put(column, row, shortened(curve.title, right - column), BOLD)


def _axis_values(grid: Grid, low: float, high: float, left: int, top: int, down: int) -> None:
    rows = (
        {0: high, down - 1: low} if down < 5 or down % 2 == 0 else {0: high, down // 2: (low + high) / 2, down - 1: low}
    )
    digits = next((n for n in (3, 4, 5) if len({number(v, n) for v in rows.values()}) == len(rows)), 6)
    for y, value in rows.items():
        text = number(value, digits)
        grid.put(left - 1 - len(text), top + y, text, DIM)
        grid.put(left - 1, top + y, "┤", DIM)


def limits(values: Floats, from_zero: bool) -> tuple[float, float]:
    """The ends of an axis that holds all values that are finite, and between which there is room."""
    finite = values[np.isfinite(values)]
    low, high = float(finite.min()), float(finite.max())
    low = min(0.0, low) if from_zero else low
    if low == high:
        room = abs(low) / 10 or 1.0
        return low - room, high + room
    return low, high


def number(value: float, digits: int = 4) -> str:
    """Short: 0.001234, 12.34, 12.34k, 1.2e-6."""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if factor * (10 if unit == "k" else 1) <= size < 1e12:
            return f"{value / factor:.{digits}g}{unit}"
    if 1e-3 <= size < 1e4 or size == 0:
        return f"{value:.{max(digits, 4) if size >= 1000 else digits}g}"
    mantissa, exponent = f"{value:.{digits - 2}e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"


def duration(seconds: float) -> str:
    """0:00:42, 13:02:11, 3 d 04 h."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours < 48 else f"{hours // 24} d {hours % 24:02} h"


def _color(run: int) -> str:
    return COLORS[run % len(COLORS)]


def _letter(run: int) -> str:
    """What a curve is drawn with where runs have no colors."""
    return chr(ord("a") + run % 26)
