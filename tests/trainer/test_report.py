"""The report: whole in one file, honest about what is missing, safe with any label."""

import json
import math
import platform
import re
from html.parser import HTMLParser

import pytest
from scipy.stats import binomtest

from ortho_kernels.trainer.report.machine import describe_machine
from ortho_kernels.trainer.report.page import render, write_report
from ortho_kernels.trainer.report.record import RunRecord
from ortho_kernels.trainer.report.text_summary import summary

RESULTS = {
    "knn": 0.5,
    "linear_probe": 0.625,
    "raw_pixels_knn": 0.25,
    "chance": 0.1,
    "train_images": 100,
    "test_images": 50,
    "representation_effective_rank": 3.25,
    "representation_rankme": 4.5,
    "weights_effective_rank": 0.9,
    "penalty_raw": 12.0,
    "steps": 1000,
    "train_size": 2000,
    "penalty_share": 0.0125,
    "step_ms": 100.0,
    "penalty_ms": 1.25,
    "images_per_second": 640.0,
    "seconds": 60.0,
    "machine": describe_machine(),
    "settings": {"seed": 0, "penalty.gamma": 1e-6},
}


@pytest.fixture
def record(tmp_path):
    def write(label, layers=2, **results):
        folder = tmp_path / re.sub(r"\W", "-", label)
        folder.mkdir()
        (folder / "config.yaml").write_text(f"penalty:\n  kind: so  # {label}\n")
        (folder / "metrics.csv").write_text("step,loss,penalty_raw,spread\n1,2.0,5.0,0.9\n2,1.5,4.0,0.8\n")
        spectra = {
            "weights": {f"layer{i}.weight": [2.0, 1.0] for i in range(layers)},
            "representation": [1.0, 1e-9, 0.0],
        }
        (folder / "spectra.json").write_text(json.dumps(spectra))
        (folder / "results.json").write_text(json.dumps({"label": label, **RESULTS, **results}))
        return RunRecord.read(folder)

    return write


@pytest.fixture
def text_alone(monkeypatch):
    """Reports without figures, which take longer to draw than all else."""
    monkeypatch.setattr("ortho_kernels.trainer.report.plots.panels.svg", lambda *_: "<svg></svg>")


class Page(HTMLParser):
    """Collects what a browser would load."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.tags = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loaded += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]


def test_a_report_needs_nothing_beside_it(record):
    text = render([record("baseline"), record("regularized")])
    page = Page(text)
    assert page.tags.count("svg") > 3
    assert all(source.startswith("#") for source in page.loaded)  # markers of the figure itself
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_figures_and_differences_are_in_the_table(text_alone, record):
    text = render([record("baseline"), record("regularized", knn=0.525)])
    for figure in ("50.00 %", "52.50 %", "+2.50 points", "62.50 %", "25.00 %", "1.25 %", "3.25", "torch"):
        assert figure in text
    interval = binomtest(25, 50).proportion_ci(method="wilson")
    assert f"± {100 * (interval.high - interval.low) / 2:.1f} points" in text
    assert f"50.00 % <span class=interval>({100 * interval.low:.2f} to {100 * interval.high:.2f})</span>" in text


def test_the_summary_has_the_headlines_in_columns(record):
    lines = summary([record("baseline"), record("regularized", knn=0.525)]).splitlines()
    assert lines[0].split() == ["baseline", "regularized", "difference"]
    [knn] = [line for line in lines if line.startswith("kNN on frozen")]
    assert knn.split()[-6:] == ["50.00", "%", "52.50", "%", "+2.50", "points"]
    assert len({len(line) for line in lines}) == 1


def test_a_single_run_has_no_differences(text_alone, record):
    text = render([record("alone")])
    assert 'class="difference"' not in text
    assert "<h1>Alone</h1>" in text


def test_what_was_not_measured_is_left_out_or_marked(text_alone, record):
    bare = record("resumed")
    for key in ("penalty_share", "step_ms", "penalty_ms", "images_per_second"):
        del bare.results[key]
    assert "share of the step" not in render([bare])
    assert "<td>–</td>" in render([bare, record("whole")])


def test_values_that_are_not_finite_are_shown_and_drawn(record):
    broken = record("broken", penalty_raw=math.nan)
    broken.representation[:] = [math.nan] * 3
    broken.weights["layer0.weight"][:] = [math.nan, math.nan]
    assert "nan" in render([broken])


def test_what_differs_is_said(text_alone, record):
    baseline = record("baseline", settings={"seed": 0, "penalty.gamma": 0.0})
    text = render([baseline, record("regularized")])
    assert "differ in penalty.gamma (0.0, 1e-06) and in no other setting that all have" in text
    assert "They share one seed" in text
    assert "<td>–</td><td>1.25 %</td>" in text  # a baseline pays for no penalty
    other = record("other seed", settings={"seed": 1, "penalty.gamma": 1e-6})
    assert "They share one seed" not in render([baseline, other])


def test_a_note_is_printed(text_alone, record):
    assert "why this gamma &amp; no other" in render([record("noted", note="why this gamma & no other")])


def test_labels_are_escaped(record):
    assert "<script>" not in render([record("<script>alert(1)</script>")])


def test_many_runs_and_layers_are_drawn(record):
    assert "<h1>8 runs</h1>" in render([record(f"run {i}", layers=31 if i == 0 else 2) for i in range(8)])


def test_the_same_runs_give_the_same_page(record):
    runs = [record("one")]
    assert render(runs) == render(runs)


def test_a_report_replaces_the_one_before_at_once(text_alone, record, tmp_path):
    path = tmp_path / "new" / "report.html"
    write_report(path, [record("one")])
    write_report(path, [record("two")])
    assert "<h1>Two</h1>" in path.read_text()
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_the_machine_is_described_without_naming_it():
    facts = describe_machine()
    assert {"processor", "cores", "torch"} <= facts.keys()

    assert platform.node() not in facts.values()


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"spread": 0.01}, "the spread of its projections is 0.01, below 0.3. Try a lower optimizer.lr"),
        ({"representation_spread": 0.02}, "the spread of its features is 0.02, below 0.05"),
        ({"representation_effective_rank": 1.25}, "the effective rank of its features is 1.2, below 1.5"),
        ({}, None),
        ({"spread": math.nan}, None),  # batches of one picture
    ],
)
def test_a_collapse_is_said_in_summary_and_report(text_alone, record, figures, said):
    runs = [record("one"), record("two", **figures)]
    found = re.findall(r"two has collapsed: .*", summary(runs))
    assert len(found) == (said is not None)
    assert all(said in sentence for sentence in found)
    assert re.findall(r'<p class="alarm">(.*)</p>', render(runs)) == found


def test_the_spread_of_an_older_run_is_the_last_of_its_curve(record):
    run = record("old")
    run.metrics["spread"][-1] = 0.1
    assert "the spread of its projections is 0.1, below" in summary([run])


def test_the_advice_fits_the_method(record):
    run = record("dino", spread=0.1, settings={"method.name": "dino"})
    assert "Try method.batch_norm=true, a lower method.final_teacher_temperature, a lower optimizer.lr" in summary(
        [run]
    )
