"""The picture in the terminal: right characters, never wider or higher than its window."""

import re
from itertools import pairwise

import numpy as np
import pytest
from live_runs import METRICS, write_evaluations, write_run

from ortho_kernels.trainer.report.characters import Grid, polyline, shortened, text_width
from ortho_kernels.trainer.report.live_run import LiveRun
from ortho_kernels.trainer.report.terminal import draw, duration, limits, number

ESCAPE = re.compile(r"\x1b\[[\d;]*m")


@pytest.fixture
def runs(tmp_path):
    """Three, the first of which is evaluated while it trains."""
    found = []
    for name, label in (("a", "SimCLR baseline"), ("b", "SimCLR + SO 1e-06"), ("c", "比較 " * 20)):
        folder = write_run(tmp_path / name, label=label)
        if name == "a":
            write_evaluations(folder)
        found.append(LiveRun(folder))
        found[-1].look(held=True)
    return found


def test_dots_become_braille():
    grid = Grid(3, 1)
    dots = np.zeros((4, 6), dtype=bool)
    dots[:, 0:2] = True  # a full cell
    dots[0, 2] = dots[3, 3] = True  # highest on the left, lowest on the right
    grid.dots(0, 0, dots, "36")
    assert grid.lines(colors=False) == ["⣿⢁"]
    grid.dots(0, 0, np.roll(dots, 2, axis=1), "33")  # over what is there
    assert grid.lines(colors=False) == ["⣿⣿⢁"]
    assert grid.lines(colors=True) == ["\x1b[0m\x1b[36m⣿\x1b[0m\x1b[33m⣿⢁\x1b[0m"]


def test_dots_become_ascii():
    grid = Grid(4, 1, ascii_only=True)
    dots = np.zeros((4, 8), dtype=bool)
    dots[0, 0] = dots[1, 2] = dots[3, 4] = True
    dots[:, 6] = True
    grid.dots(0, 0, dots, "36")
    assert grid.lines(colors=False) == ["'-.|"]


def test_a_polyline_joins_its_points():
    dots = polyline(np.array([0.0, 3, 3, 6, 7]), np.array([0.0, 3, 1, np.nan, 2]), width=8, height=4)
    drawn = ["".join(" #"[int(dot)] for dot in row) for row in dots]
    assert drawn == [
        "   #    ",
        "  ##   #",
        " # #    ",
        "#       ",
    ]


def test_a_polyline_has_no_holes():
    generator = np.random.default_rng(0)
    xs, ys = np.sort(generator.uniform(0, 79, 30)), generator.uniform(0, 39, 30)
    dots = polyline(xs, ys, width=80, height=40)
    columns = [np.flatnonzero(column) for column in dots.T[round(xs[0]) : round(xs[-1]) + 1]]
    for here, there in pairwise(columns):
        assert len(here)
        assert np.abs(here[:, None] - there).min() <= 1


def test_text_is_measured_and_cut_in_columns():
    assert text_width("abc") == 3
    assert text_width("比較") == 4
    assert text_width("e\u0301") == 1
    assert shortened("SimCLR", 6) == "SimCLR"
    assert shortened("SimCLR", 5) == "SimC…"
    assert shortened("比較", 3) == "比…"
    grid = Grid(5, 1)
    assert grid.put(0, 0, "比較x") == 5
    assert grid.put(3, 0, "比較") == 5  # the second has no room
    assert grid.put(0, 3, "below") == 0


SIZES = [(80, 24), (100, 30), (200, 60), (60, 15), (40, 10), (20, 5), (8, 2), (1, 1)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("colors", [True, False])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_it_fits_its_window(runs, size, count, colors, ascii_only):
    lines = draw(runs[:count], *size, colors, ascii_only)
    bare = [ESCAPE.sub("", line) for line in lines]
    assert len(lines) <= size[1]
    assert max(map(text_width, bare)) <= size[0]
    assert "\x1b" not in "".join(bare)
    if not colors:
        assert lines == bare
    if ascii_only:
        "".join(bare).encode("ascii")


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
def test_all_curves_are_there(runs, size):
    text = "\n".join(draw(runs[:1], *size, colors=False, ascii_only=False))
    for title in ("loss", "penalty before gamma", "spread", "kNN accuracy (%)", "effective rank", "RankMe"):
        assert title in text
    for said in ("learning rate", "images/s", "step 200 of 1,000 (20%)", "left · 0:0", "300 images/s", "● training"):
        assert said in text
    for last in ("0.25", "80", "13", "23", "0.05"):  # loss, kNN, ranks, learning rate
        assert re.search(rf"\s{last}\b", text)


def test_what_fits_no_window_is_left_out_from_the_end(runs):
    text = "\n".join(draw(runs[:1], 30, 14, colors=False, ascii_only=False))
    assert "loss" in text
    assert "images/s" not in text.partition("loss")[2]


def test_runs_are_told_apart_by_color_or_by_letter(runs):
    lines = draw(runs, 100, 30, colors=True, ascii_only=False)
    assert "\x1b[36m━━" in lines[0]
    assert "\x1b[33m━━" in lines[1]
    lines = draw(runs, 100, 30, colors=False, ascii_only=True)
    assert [line[:4] for line in lines[:3]] == ["a  S", "b  S", "c  ?"]
    assert "ccc" in "\n".join(lines)


def test_a_spike_is_seen(tmp_path):
    folder = write_run(tmp_path / "run")
    rows = [f"{i},{9.0 if i == 31234 else 2.0},0,1.0,0.9,0.1,300.0,0" for i in range(1, 60001)]
    (folder / "metrics.csv").write_text("\n".join([METRICS, *rows, ""]))
    run = LiveRun(folder)
    run.look(held=True)
    lines = draw([run], 80, 24, colors=False, ascii_only=False)
    top = next(i for i, line in enumerate(lines) if line.startswith("loss")) + 1
    axis = lines[top].index("┤")
    assert [i - axis for i, c in enumerate(lines[top]) if "⠀" < c <= "⣿" and i < 26] == [1 + round(0.52 * 18) - 1]


def test_a_run_without_rows_says_so(tmp_path):
    run = LiveRun(write_run(tmp_path / "run", rows=0))
    run.look(held=True)
    text = "\n".join(draw([run], 80, 24, colors=False, ascii_only=False))
    assert "There is no row in metrics.csv yet." in text
    assert "● starting" in text
    assert "step 0 of 1,000" in text


def test_a_collapsed_spread_is_red(tmp_path):
    folder = write_run(tmp_path / "run", rows=1)
    with open(folder / "metrics.csv", "a") as file:
        file.write("20,nan,0.1,1.0,0.05,0.1,300.0,0\n")  # and no loss: a gap
    run = LiveRun(folder)
    run.look(held=True)
    assert "\x1b[1;31m0.05" in "\n".join(draw([run], 80, 24, colors=True, ascii_only=False))


def test_axes_have_room():
    assert limits(np.array([1.0, np.nan, 3.0, np.inf]), from_zero=False) == (1, 3)
    assert limits(np.array([1.0, 3.0]), from_zero=True) == (0, 3)
    assert limits(np.array([5.0]), from_zero=False) == (4.5, 5.5)
    assert limits(np.zeros(2), from_zero=True) == (-1, 1)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1, "1"),
        (0.95832, "0.9583"),
        (9.99996, "10"),
        (1234.5, "1234"),
        (12345.6, "12.35k"),
        (1.5e6, "1.5M"),
        (2.5e9, "2.5G"),
        (6e-5, "6e-5"),
        (-1.234e-7, "-1.23e-7"),
        (1e15, "1e15"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
    ],
)
def test_numbers_are_short(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00:00"), (59.6, "0:01:00"), (7325, "2:02:05"), (172799, "47:59:59"), (273600, "3 d 04 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
