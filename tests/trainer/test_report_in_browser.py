"""Pages as a browser shows them: on a telephone and on a desk, light and dark, printed; nothing loaded, nothing cut."""

import re

import numpy as np
import pytest
from live_runs import write_evaluations, write_run
from made_up_study import complete, study

from ortho_kernels.trainer.report.live_page import LivePage
from ortho_kernels.trainer.report.live_run import LiveRun
from ortho_kernels.trainer.report.page import write_report

NARROW, WIDE = 390, 1200
SEVERAL = {
    "one": lambda: study(["SimCLR"], {"SO": 1e-4}, seeds=1, layers=4),
    "two": lambda: study(["SimCLR"], {"baseline": 0.0, "SO": 1e-4}, seeds=1, layers=4),
    "twelve": lambda: [
        complete(f"A run with a title as long as users write them, {i}", {"optimizer.lr": 0.1 * i}, layers=2, steps=40)
        for i in range(12)
    ],
    "titles of one long word": lambda: [complete(letter * 300, {"method.name": letter}, layers=2) for letter in "ab"],
    "24 of 8 groups": lambda: study(layers=4, steps=200),
}
# Boxes that may be wider than the page, since they scroll or are hidden.
WIDER_THAN_THE_PAGE = """
(() => {
  const width = document.documentElement.clientWidth;
  const scrolls = element => element && (["auto", "scroll"].includes(getComputedStyle(element).overflowX)
    || scrolls(element.parentElement));
  return [...document.body.querySelectorAll("*")]
    .filter(element => element.getBoundingClientRect().right > width + 1 && !scrolls(element))
    .map(element => element.outerHTML.slice(0, 200));
})()
"""
BOXES_OF_FIGURES = """
[...document.querySelectorAll(".panels svg, .panels img, .curves > figure > svg")].map(element => {
  const box = element.getBoundingClientRect();
  return [box.x, box.y + scrollY, box.width, box.height];
})
"""
BROKEN_IMAGES = "[...document.images].filter(image => !(image.complete && image.naturalWidth > 0)).length"
LEAST_LETTERS = """
Math.min(...[...document.querySelectorAll(".panels:not(.small) svg text")].map(text =>
  parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a))
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """`page("two")`: the path of that report, or of the live page."""
    folder = tmp_path_factory.mktemp("pages")

    def of(name):
        path = folder / f"{name}.html"
        if name == "live":
            runs = [LiveRun(write_run(folder / f"run{i}", label=f"SimCLR + SO {i}e-4")) for i in range(1, 4)]
            for run in runs:
                write_evaluations(run.folder)
                run.look(held=True)
            LivePage(path, runs).write(reload=None)
        elif not path.exists():
            write_report(path, SEVERAL[name]())
        return path

    return of


def brightness(picture):
    """The mean luma, from 0 (black) to 1."""
    return np.asarray(picture.convert("L")).mean() / 255


@pytest.mark.parametrize("width", [NARROW, WIDE])
@pytest.mark.parametrize(
    "name",
    ["one", "two", pytest.param("twelve", marks=pytest.mark.slow), "24 of 8 groups", "titles of one long word", "live"],
)
def test_nothing_is_wider_than_the_page(browser, page, name, width):
    browser.open(page(name), width)
    assert browser.run("document.documentElement.scrollWidth") == width
    assert browser.run(WIDER_THAN_THE_PAGE) == []
    assert browser.run(BROKEN_IMAGES) == 0
    boxes = browser.run(BOXES_OF_FIGURES)
    assert len(boxes) >= 8
    assert all(box[2] > 90 and box[3] > 60 for box in boxes)
    assert browser.complaints() == []
    if name != "live":
        assert browser.run(LEAST_LETTERS) >= 7.5  # pixels


@pytest.mark.parametrize("width", [NARROW, WIDE])
@pytest.mark.parametrize("name", ["two", "live"])
def test_pages_are_dark_where_the_reader_prefers_it_and_so_are_their_figures(browser, page, name, width):
    for dark in (False, True):
        browser.open(page(name), width, dark=dark)
        whole = browser.picture()
        figures = [whole.crop((x, y, x + w, y + h)) for x, y, w, h in browser.run(BOXES_OF_FIGURES)]
        maps = browser.run('document.querySelectorAll(".map").length')
        assert len(figures) > maps
        for brightnesses in (brightness(whole), *map(brightness, figures)):
            assert brightnesses < 0.3 if dark else brightnesses > 0.6
        for figure in figures:  # and something is to be seen on it
            assert np.ptp(np.asarray(figure.convert("L"))) > 80


@pytest.mark.parametrize("name", [pytest.param("two", marks=pytest.mark.slow), "24 of 8 groups"])
def test_a_printed_report_is_ink_on_white_paper(browser, page, name):
    browser.open(page(name), 700, dark=True, media="print")  # as wide as A4 without its margins
    assert browser.picture().getpixel((1, 1)) == (255, 255, 255)
    assert brightness(browser.picture()) > 0.75
    browser.open(page(name), WIDE, dark=True)
    pdf = browser.pdf()
    assert pdf.startswith(b"%PDF")
    sizes = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf)
    assert {(round(float(width)), round(float(height))) for width, height in sizes} == {(595, 842)}  # A4
    assert 2 <= len(re.findall(rb"/Type /Page\b", pdf)) <= 14


def test_a_keyboard_reaches_every_box_that_scrolls(browser, page):
    browser.open(page("24 of 8 groups"), NARROW)
    lost = browser.run(
        '[...document.querySelectorAll(".wide, .table")].filter(box => box.scrollWidth > box.clientWidth && '
        "box.tabIndex < 0).length"
    )
    assert lost == 0


def test_a_report_of_24_runs_is_no_burden(page):
    assert page("24 of 8 groups").stat().st_size < 2e6
