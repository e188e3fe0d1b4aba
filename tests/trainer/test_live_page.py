"""The page of runs that still train: whole in one file, light and dark, and drawn again only where there is news."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from live_runs import metrics_row, write_evaluations, write_run

from ortho_kernels.trainer.report import plots
from ortho_kernels.trainer.report.live_page import LivePage
from ortho_kernels.trainer.report.live_run import CURVES, LiveRun
from ortho_kernels.trainer.report.palette import variables


@pytest.fixture
def page(tmp_path):
    """`page("label", ...)`: that of runs with these labels, which have just been looked at."""

    def of(*labels, rows=20):
        runs = [
            LiveRun(write_run(tmp_path / f"run{i}", rows=rows if i else max(rows, 1), label=label))
            for i, label in enumerate(labels)
        ]
        if rows:
            write_evaluations(runs[0].folder)
        for run in runs:
            run.look(held=True)
        return LivePage(tmp_path / "page.html", runs)

    return of


def written(page, reload=None):
    page.write(reload)
    return page.path.read_text()


class Loaded(HTMLParser):
    """Collects what a browser would load."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag in ("script", "link", "iframe", "img"):
            self.found.append(tag)
        self.found += [v for k, v in attributes if k in ("src", "href", "xlink:href") and not v.startswith("#")]


def test_it_needs_nothing_beside_it(page):
    text = written(page("one", "two"))
    assert Loaded(text).found == []
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    figures = re.findall(r"<svg xmlns.*?</svg>", text, re.DOTALL)
    assert len(figures) == len(CURVES)
    for figure in figures:
        ElementTree.fromstring(figure)


def test_the_colors_of_a_figure_are_those_of_the_page(page):
    text = written(page(*"abcdefghi"))
    light, dark = (variables(dark=dark) for dark in (False, True))
    assert text.index(light) < text.index("@media screen and (prefers-color-scheme: dark)") < text.index(dark)
    for figure in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        assert not re.findall(r"#[0-9a-f]{6}\b", re.sub(r"var\([^)]*\)", "", figure))


def test_labels_are_escaped(page):
    assert "<script>" not in written(page("<script>alert(1)</script>", "other"))


def test_how_far_the_runs_are(page):
    text = written(page("SimCLR", "BYOL"), reload=4.2)
    assert "<title>SimCLR and BYOL</title>" in text
    assert (
        len(re.findall(r"step 200 of 1,000 \(20%\) · 0:06:\d\d left · 0:0[12]:\d\d so far · 300 images/s", text)) == 2
    )
    assert text.count('style="width: 20.0%') == 2
    assert '<meta http-equiv="refresh" content="5">' in text  # whole seconds


def test_figures_are_drawn_again_where_a_row_is_new(page, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "live_curve", lambda curve, runs: drawn.append(curve) or "<svg></svg>")
    made = page("one")
    written(made)
    assert drawn == list(CURVES)
    written(made)
    assert len(drawn) == len(CURVES)
    with open(made.runs[0].folder / "metrics.csv", "a") as file:
        file.write(metrics_row(210))
    made.runs[0].look(held=True)
    assert "step 210" in written(made)
    assert len(drawn) == 2 * len(CURVES)


def test_one_row_or_none_is_drawn(page):
    assert "<svg" in written(page("one", "without a row", rows=0))


def test_a_run_without_rows_says_so(tmp_path):
    run = LiveRun(write_run(tmp_path / "run", rows=0))
    run.look(held=True)
    text = written(LivePage(tmp_path / "page.html", [run]))
    assert "There is no row in metrics.csv yet." in text
    assert "starting" in text
