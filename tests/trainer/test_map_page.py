"""The page of a map: every cell, every setting and every reason is on it, and a browser shows it whole."""

import csv
import html
import io
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from made_up_map import decay, none, runs, so, srip

from ortho_kernels.trainer.report import map_page
from ortho_kernels.trainer.report.groups import groups_of
from ortho_kernels.trainer.report.heat_map import heat_map
from ortho_kernels.trainer.report.map_cells import cells_of
from ortho_kernels.trainer.report.map_page import map_lines, write_map
from ortho_kernels.trainer.report.map_tables import map_csv
from ortho_kernels.trainer.report.measures import SCORES as MEASURES
from ortho_kernels.trainer.report.plots.cell_panels import cell_panel
from ortho_kernels.trainer.report.recommended_gamma import judged_by

SCORES = {
    none(): [0.500, 0.520, 0.570],
    none(10.0): [0.517, 0.530, 0.588],
    so(1e-4): [0.504, 0.522, 0.571],
    so(1e-3): [0.532, 0.549, 0.601],
    so(1e-2): [0.480, 0.501, 0.552],
    decay(1e-3): [0.510, 0.532, 0.578],
}
BYOL = {"method.name": "byol"}
KNN = MEASURES[0]


def judged(*records):
    return [judged_by(cell, KNN) for cell in cells_of(groups_of([run for several in records for run in several]))]


def cells_in(markup):
    return [html.unescape(text) for text in re.findall(r"<td[^>]*>(.*?)</td>", markup)]


@pytest.fixture
def text_alone(monkeypatch):
    """Pages without figures, which take longer to draw than all else."""
    monkeypatch.setattr(map_page, "cell_panel", lambda *_: None)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Of two cells and two penalties, one of which has collapsed in one cell."""
    path = tmp_path_factory.mktemp("map") / "map.html"
    large = {"backbone.name": "resnet50"}
    every = [run for cell in (large, BYOL) for run in runs(SCORES, cell)]
    collapsed = runs({srip(0.02): [0.1, 0.2, 0.3]}, large, spread=0.01)
    write_map(
        path, [*every, *collapsed, *runs({srip(0.02): SCORES[so(1e-3)]}, BYOL)], ["byol, resnet50, so 1e-1, seed 2"]
    )
    return path


def test_one_alarm_a_cell_names_what_collapsed(tmp_path):
    collapsed = [*runs({srip(0.02): [0.1, 0.2, 0.3]}, spread=0.01), *runs({srip(0.2): [None, 0.1, None]}, spread=0.01)]
    write_map(tmp_path / "map.html", [*runs(SCORES), *collapsed, *runs(SCORES, BYOL)])
    [alarm] = re.findall(r'<p class="alarm">(.*?)</p>', (tmp_path / "map.html").read_text())
    assert alarm.startswith(
        "simclr, resnet18: runs collapsed at srip 2e-2 (seed 0, 1, 2); srip 0.2 (seed 1). "
        "All of these but gamma 0 are left out."
    )


def test_the_heat_map_has_the_differences_to_gamma_0_and_stars_where_they_are_clear():
    one, other = {**SCORES}, {name: row for name, row in SCORES.items() if name != so(1e-2)}
    markup = heat_map(judged(runs(one), runs(other, BYOL)), KNN)
    assert [text for text in cells_in(markup) if text] == [
        *("53.00 %", "+0.23", "+3.07*", "−1.90*", "+1.00*", "+1.50*"),
        *("53.00 %", "+0.23", "+3.07*", "–", "+1.00*", "+1.50*"),
    ]
    assert re.findall(r"<th[^>]*>([^<]+)</th>", markup) == [
        *("so, gamma", "decay", "weight decay", "gamma 0", "1e-4", "1e-3", "1e-2", "1e-3", "×10"),
        *("simclr, resnet18", "byol, resnet18"),
    ]
    strongest = re.findall(r"background: (#\w{6})(\w\w)\" title=\"so 1e-3", markup)
    assert strongest == [("#d9591f", f"{round(255 * 0.62):02x}")] * 2


def test_what_is_left_out_is_hatched():
    collapsed = runs({srip(0.02): [0.1, 0.2, 0.3]}, spread=0.01)
    markup = heat_map(judged(runs(SCORES), collapsed), KNN)
    assert '<td class=out title="3 of 3 runs collapsed">left out</td>' in markup


def test_one_seed_has_colors_and_no_star():
    markup = heat_map(judged(runs({name: row[:1] for name, row in SCORES.items()})), KNN)
    assert "+3.20" in cells_in(markup)
    assert "*" not in markup
    assert "no interval" in markup


def test_bars_are_the_intervals_of_the_differences():
    """In points of the picture: the ends of a bar lie around the mean as the interval does, on the scale of the axis."""
    [cell] = judged(runs(SCORES))
    panel = cell_panel(cell, KNN)
    assert panel.title == "simclr, resnet18: kNN (%)"
    ElementTree.fromstring(panel.picture)
    number = r"(-?\d+(?:\.\d+)?)"
    paths = re.findall(rf"M {number} {number} L {number} {number} \"", panel.picture)
    uprights = [(float(x), float(y), abs(float(v) - float(y))) for x, y, u, v in paths if x == u]
    bars = {x: (y, length) for x, y, length in uprights if 3 < length < 178}  # the others are ticks and borders
    [line] = re.findall(rf"M 42 {number} L 344 {number} \"[^>]*stroke-width: 1\.2", panel.picture)  # gamma 0
    gains = {name: gain for series in cell.cell.series for name, gain in cell.gains(series).items()}
    (_, (bottom, length)), *_ = sorted(bars.items())[1:]
    scale = (float(line[0]) - (bottom - length / 2)) / gains["so 1e-3"].value  # points for a share
    assert len(bars) == len(gains) == 5
    for (_, (bottom, length)), gain in zip(sorted(bars.items()), gains.values(), strict=True):
        assert length == pytest.approx(2 * scale * gain.half_width, rel=0.02)
        assert float(line[0]) - (bottom - length / 2) == pytest.approx(scale * gain.value, abs=0.05)
    for label in ("so, gamma", "decay", "weight decay", "×10", "1e-3"):
        assert f">{label}<" in panel.picture


def test_nothing_is_drawn_of_a_cell_that_has_nothing_to_compare():
    assert cell_panel(judged(runs({none(): [0.5]}))[0], KNN) is None
    assert cell_panel(judged(runs({so(1e-4): [0.5]}))[0], KNN) is None
    assert heat_map(judged(runs({none(): [0.5]})), KNN) == ""


def test_the_page_names_what_was_done_and_what_is_missing(text_alone, tmp_path):
    path = tmp_path / "new" / "map.html"
    write_map(path, runs(SCORES), ["<so> seed=3 (not done yet)"])
    text = html.unescape(path.read_text())
    assert "only if it is told apart from gamma 0" in text
    assert "A map of few seeds can show neither" in text
    assert "<li>&lt;so&gt; seed=3 (not done yet)</li>" in path.read_text()
    for section in (
        "Recommended gamma",
        "What gamma does to kNN",
        "What gamma does to RankMe",
        "All settings",
        "Cost",
    ):
        assert f"<h2>{section}</h2>" in text
    assert "linear probe: none" in text  # which is the same in every run
    assert "http" not in text.replace("http://www.w3.org", "")


@pytest.mark.parametrize(
    "scores",
    [
        {none(): [0.5]},
        {so(1e-4): [0.5]},
        {none(): [0.5], so(1e-4): [0.6]},
        {none(): [math.nan, 0.5], so(1e-4): [0.6, math.nan]},
        {none(): [0.5, None], so(1e-4): [None, 0.6]},
        {none(): [0.5, 0.6], so(1e-4): [0.5, 0.6]},
        {none(): [0.5, 0.6], none(10.0): [0.5, 0.7]},
    ],
)
def test_a_map_of_few_runs_is_a_page_without_claims(scores, tmp_path):
    write_map(tmp_path / "map.html", runs(scores))
    text = (tmp_path / "map.html").read_text()
    assert "<h2>Recommended gamma</h2>" in text
    assert "nan" not in re.sub(r"<[^>]*>", "", text.partition("All settings")[0])
    assert not re.search(r"[+−]\d[\d.]*\*", text)


def test_a_map_needs_a_run_and_a_score_that_there_is(tmp_path):
    with pytest.raises(ValueError, match="needs a finished run"):
        write_map(tmp_path / "map.html", [])
    with pytest.raises(ValueError, match="one of knn, linear_probe, rankme"):
        write_map(tmp_path / "map.html", runs(SCORES), score="accuracy")
    assert not (tmp_path / "map.html").exists()


def test_unlabeled_maps_are_judged_by_rankme(text_alone, tmp_path):
    records = runs(SCORES, knn=None, linear_probe=None, chance=None, train_images=None, test_images=None)
    for record in records:
        record.results.pop("knn", None)
    write_map(tmp_path / "map.html", records, score="rankme")
    text = html.unescape((tmp_path / "map.html").read_text())
    assert "RankMe − gamma 0" in text
    assert text.count("What gamma does to") == 1
    assert "RankMe minus that of gamma 0" in text


def test_the_terminal_has_a_line_for_each_cell_and_penalty():
    lines = map_lines([*runs(SCORES), *runs({**SCORES, so(1e-3): SCORES[none()]}, BYOL)])
    assert lines[0].split() == [
        *("gamma", "seeds", "kNN", "−", "gamma", "0", "−", "best", "decay", "−", "best", "weight", "decay")
    ]
    assert re.match(r"simclr, resnet18, so +1e-3 +3 +\+3\.07 \(\+\d\.\d\d to \+\d\.\d\d\)", lines[1])
    assert re.match(r"byol, resnet18, so +none +3", lines[2])
    assert lines[3].startswith(
        "simclr, resnet18, so: above the best decay; above the best weight decay; gamma 1e-2 scores"
    )
    assert lines[4].startswith("byol, resnet18, so: no gamma is told apart from gamma 0; ")


def test_the_table_of_all_runs_has_a_line_each():
    records = [*runs(SCORES), *runs({srip(0.02): [0.1]}, spread=0.01)]
    rows = list(csv.DictReader(io.StringIO(map_csv(records))))
    assert len(rows) == len(records)
    assert rows[0]["cell"] == "simclr, resnet18"
    assert {(row["setting"], row["gamma"], row["weight_decay"]) for row in rows} >= {
        ("gamma 0", "0.0", "0.0005"),
        ("weight decay ×10", "0.0", "0.005"),
        ("so 1e-3", "0.001", "0.0005"),
    }
    assert [row["knn"] for row in rows if row["setting"] == "so 1e-3"] == ["0.532", "0.549", "0.601"]
    assert [row["collapsed"] for row in rows if row["penalty"] == "srip"] == ["True"]


@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_the_page_whole_light_and_dark(browser, page, width):
    for dark in (False, True):
        browser.open(page, width, dark=dark)
        assert browser.run("document.documentElement.scrollWidth") == width
        assert browser.complaints() == []
        light = np.asarray(browser.picture().convert("L")).mean() / 255
        assert light < 0.3 if dark else light > 0.7
        smallest = browser.run(
            'Math.min(...[...document.querySelectorAll(".panels svg text")].map(text => '
            "parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a))"
        )
        assert smallest >= 7.4
        overlapping = browser.run("""
            [...document.querySelectorAll(".panels svg")].flatMap(svg => {
              const boxes = [...svg.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()]);
              return boxes.flatMap(([a, p], i) => boxes.slice(i + 1).filter(([b, q]) =>
                p.right > q.left + 1 && q.right > p.left + 1 && p.bottom > q.top + 1 && q.bottom > p.top + 1)
                .map(([b]) => a + " on " + b));
            })""")
        assert overlapping == []


def test_the_page_is_printed_on_a4(browser, page):
    browser.open(page, 1200, dark=True)
    pdf = browser.pdf()
    assert 2 <= len(re.findall(rb"/Type /Page\b", pdf)) <= 8
