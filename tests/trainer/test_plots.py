"""Figures: what is drawn is what the runs have, in the page's colors, and nothing where there is nothing."""

import io
import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from made_up_study import STAGES, complete, study
from PIL import Image

from ortho_kernels.trainer.report import plots
from ortho_kernels.trainer.report.groups import groups_of
from ortho_kernels.trainer.report.intervals import mean_interval
from ortho_kernels.trainer.report.palette import COLORS, NEGATIVE, POSITIVE, RAMP
from ortho_kernels.trainer.report.plots import panels
from ortho_kernels.trainer.report.plots.correlations import LEVELS, map_of
from ortho_kernels.trainer.report.plots.drawing import MOST_VALUES, by_setting, curves_of, spelled, thinned
from ortho_kernels.trainer.report.plots.gammas import baseline_in, lines_of
from ortho_kernels.trainer.report.plots.layers import residuals_of, spectra_of
from ortho_kernels.trainer.report.plots.looks import Look, looks
from ortho_kernels.trainer.report.plots.means import mean_curve, relative

FIGURES = [getattr(plots, name) for name in plots.__all__ if name != "live_curve"]
NUMBER = r"-?\d+(?:\.\d+)?"


@pytest.fixture(scope="module")
def groups():
    """Two methods, a baseline and two penalties, two seeds."""
    return groups_of(study(penalties={"baseline": 0.0, "SO": 2e-4, "SRIP": 2e-2}, seeds=2, layers=3, steps=100))


@pytest.fixture
def one():
    return groups_of([complete("Alone", {"penalty.gamma": 1e-4}, layers=3, steps=100)])


def titles(markup):
    return re.findall(r"<figcaption>(.*?)</figcaption>", markup)


def curve(picture, look):
    """The points of the thick line with that color, in points of the picture."""
    color = re.escape(f"var(--{look.series}, {look.color})")
    paths = re.findall(rf'<path d="([^"]*)"[^>]*stroke: {color}; stroke-width: 1\.5', picture)
    assert len(paths) == 1
    return np.array(re.findall(rf"[ML] ({NUMBER}) ({NUMBER})", paths[0]), dtype=float)


@pytest.mark.parametrize("draw", FIGURES, ids=lambda draw: draw.__name__)
def test_a_figure_is_well_formed_and_has_the_colors_of_the_page(draw, groups):
    markup = draw(groups)
    root = ElementTree.fromstring(f"<div>{markup}</div>")
    pictures = [element for element in root.iter() if element.tag.endswith(("svg", "img"))]
    assert all(p.get("aria-label") or p.get("alt") or p.get("aria-hidden") for p in pictures)
    colors = re.findall(r"#[0-9a-f]{6}\b", re.sub(r"var\([^)]*\)", "", markup))
    between = {panels.ramp(i / 2) for i in range(3)}  # three layers
    assert set(colors) <= {*RAMP, *between, NEGATIVE, POSITIVE}
    assert "DejaVu" not in markup


@pytest.mark.parametrize("draw", FIGURES, ids=lambda draw: draw.__name__)
def test_ids_of_a_page_are_of_one_meaning(draw, groups):
    markup = draw(groups) + draw(groups[:1])
    for kind in ("clipPath", "path"):
        found = re.findall(rf"<{kind} id=\"(\w+)\"(.*?)(?:</clipPath>|/>)", markup)
        assert len({name for name, _ in found}) == len(set(found))
    ids = set(re.findall(r' id="(\w+)"', markup))
    assert set(re.findall(r'(?:href="|url\()#(\w+)', markup)) == ids


def test_where_nothing_was_measured_nothing_is_drawn(one):
    bare = replace(one[0].runs[0], metrics={}, evaluations={}, weights={}, representation=[], spectra={})
    for draw in FIGURES:
        assert draw(groups_of([bare])) == ""


def test_values_that_are_not_finite_or_not_positive_are_gaps(one):
    run = one[0].runs[0]
    bad = [math.nan, math.inf, 0.0, -1.0]
    layer = next(name for name in run.evaluations if name.startswith("penalty/"))
    odd = replace(
        run,
        metrics={"step": [1, 2, 3, 4, 5], "loss": [*bad, 1.0], "penalty_raw": [*bad, 1e3], "spread": [*bad, 0.5]},
        evaluations={**run.evaluations, layer: bad},
        weights={"layer": [*bad, 1.0]},
        representation=[1.0, *bad],
        spectra={"stages": {"layer1": [1.0, *bad], "layer2": bad[:1]}, "correlation": [bad[:2], bad[2:]]},
    )
    for draw in FIGURES:
        assert "nan" not in draw(groups_of([odd])).replace("nano", "")
    assert titles(plots.stage_spectra(groups_of([odd]))) == ["layer1"]
    np.testing.assert_array_equal(relative([4.0, 2.0, *bad]), [1.0, 0.5, *[np.nan] * 4])
    assert len(residuals_of(groups_of([odd])[0])) == 2


@pytest.mark.parametrize("count", [1, 12, 24])
def test_every_run_is_in_the_legend_and_has_a_look_of_its_own(count):
    runs = [complete(f"Run {i}", {"optimizer.lr": float(i)}, layers=2, steps=40) for i in range(count)]
    groups = groups_of(runs)
    assert len(groups) == len(set(looks(groups))) == count
    legend = re.findall(r"<li>.*?<span>(.*?)</span></li>", plots.running_scores(groups))
    assert legend == [f"Run {i}" for i in range(count)]
    shown = plots.layer_residuals(groups)
    assert len(titles(shown)) == min(count, 12)
    assert ("12 of 24 groups are shown." in shown) == (count == 24)
    assert ("12 of 24 groups are shown." in plots.correlation_maps(groups)) == (count == 24)


def test_a_penalty_has_its_color_and_a_method_its_dashes(groups):
    assert looks(groups) == [Look(f"series-{i}", variant) for variant in (0, 1) for i in (1, 2, 3)]
    decay = groups_of(study(["SimCLR"], {"decay": 1e-3}, seeds=1, layers=1, steps=40))
    assert looks(decay) == [Look("series-4")]
    gammas = groups_of(study(["SimCLR"], {"baseline": 0.0, "SO": [1e-3, 1e-4]}, seeds=1, layers=1, steps=40))
    assert looks(gammas) == [Look("series-1"), Look("series-2", 1), Look("series-2", 0)]


def test_the_mean_of_a_group_is_that_of_its_runs_where_steps_agree():
    first, second = (np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0])), (np.array([2.0, 3.0, 4.0]), np.ones(3))
    x, y = mean_curve([first, second])
    np.testing.assert_array_equal(x, [2.0, 4.0])
    np.testing.assert_array_equal(y, [1.5, 2.0])


def test_the_curve_that_is_drawn_is_the_mean_of_the_runs(groups):
    """Points of the picture are an affine function of steps and values."""
    simclr = [group for group in groups if group.settings["method.name"] == "simclr"]
    markup = plots.running_scores(simclr)
    for group, look in zip(simclr, looks(simclr), strict=True):
        rows = [run.evaluations for run in group.runs]
        expected = [sum(run["knn"][i] for run in rows) / len(rows) for i in range(len(rows[0]["step"]))]
        points = curve(markup[: markup.index("Effective rank")], look)
        for drawn, values in ((points[:, 0], rows[0]["step"]), (-points[:, 1], expected)):
            slope, offset = np.polyfit(values, drawn, 1)
            assert slope > 0
            np.testing.assert_allclose(drawn, slope * np.asarray(values) + offset, atol=0.02)


def test_what_cannot_be_compared_has_panels_of_its_own(groups):
    found = titles(plots.training_curves(groups))
    assert found == [
        "Loss of the method, SimCLR",
        "Loss of the method, BYOL",
        "Penalty before gamma, SO",
        "Penalty before gamma, SRIP",
        "Spread of projections (0: collapsed)",
    ]
    alone = [group for group in groups if group.settings["method.name"] == "byol"][:2]
    assert titles(plots.training_curves(alone))[:2] == ["Loss of the method", "Penalty before gamma"]
    assert by_setting([], "method.name") == []
    assert spelled("simclr", ["BYOL, SimCLR too"]) == "SimCLR"
    assert spelled("vicreg", ["a title"]) == "vicreg"


def test_runs_that_stopped_early_or_lack_a_column_are_drawn_as_far_as_they_go(groups):
    long, short = groups[0].runs
    short = replace(short, metrics={name: values[:3] for name, values in short.metrics.items()})
    x, _ = mean_curve(curves_of([long, short], "metrics", "loss"))
    assert x.tolist() == long.metrics["step"][:3]
    assert curves_of([replace(long, metrics={"step": [1.0]})], "metrics", "loss") == []


def test_each_layer_has_a_curve_of_its_residuals(groups):
    group = groups[0]
    found = residuals_of(group)
    columns = [name for name in group.runs[0].evaluations if name.startswith("penalty/")]
    assert list(found) == [name.removeprefix("penalty/").removesuffix(".weight") for name in columns]
    for column, (x, y) in zip(columns, found.values(), strict=True):
        assert x.tolist() == group.runs[0].evaluations["step"]
        np.testing.assert_allclose(y, np.mean([run.evaluations[column] for run in group.runs], axis=0))
    markup = plots.layer_residuals(groups)
    assert "from layer1.0.conv (first) to layer3.2.conv (last)" in markup
    for i in range(3):
        assert markup.count(f"stroke: {panels.ramp(i / 2)}; stroke-width: 1.1") == len(groups)


def test_singular_values_fall_and_long_spectra_are_thinned(groups):
    layer, values = next(iter(groups[0].runs[0].weights.items()))
    run = replace(groups[0].runs[0], weights={layer: values[::-1]})
    np.testing.assert_array_equal(spectra_of(groups_of([run])[0], layer)[0], sorted(values, reverse=True))
    x, y = thinned(np.arange(2048.0))
    assert len(x) <= MOST_VALUES
    assert (x[0], x[-1]) == (1, 2048)
    np.testing.assert_array_equal(y, x - 1)
    many = groups_of([complete("Deep", layers=61, steps=40)])
    assert "30 of 61 layers are shown." in plots.weight_spectra(many)
    assert len(titles(plots.weight_spectra(many))) == 30


def test_a_panel_for_each_stage_and_the_slope_in_the_legend(groups):
    assert titles(plots.stage_spectra(groups)) == list(STAGES)
    alphas = [run.spectra["summary"]["alpha_req"] for run in groups[0].runs]
    assert f"{groups[0].label} (2 runs), α = {sum(alphas) / 2:.2f}<" in plots.representation_spectra(groups)


def test_correlations_are_told_by_color_and_strength():
    pixels = Image.open(io.BytesIO(map_of([[1.0, -1.0], [0.5, math.nan]]))).convert("RGBA")
    color = {name: tuple(bytes.fromhex(name[1:])) for name in (NEGATIVE, POSITIVE)}
    assert pixels.getpixel((0, 0)) == (*color[POSITIVE], 255)
    assert pixels.getpixel((1, 0)) == (*color[NEGATIVE], 255)
    assert pixels.getpixel((0, 1)) == (*color[POSITIVE], round(255 * round(0.5 * LEVELS) / LEVELS))
    assert pixels.getpixel((1, 1))[3] == 0


def test_scores_against_gamma_are_means_over_seeds_with_intervals():
    penalties = {"baseline": 0.0, "SO": [1e-3, 1e-4], "SRIP": 2e-2}
    groups = groups_of(study(["SimCLR"], penalties, seeds=3, layers=1, steps=40))
    lines = lines_of(groups, "knn", 100.0)
    assert [line.label for line in lines] == ["SO", "SRIP"]
    assert [[point.gamma for point in line.points] for line in lines] == [[1e-4, 1e-3], [2e-2]]
    for line in lines:
        for point in line.points:
            group = next(g for g in groups if g.gamma == point.gamma)
            assert point.interval == mean_interval([100 * run.results["knn"] for run in group.runs])
    assert baseline_in(groups, "knn") == mean_interval([run.results["knn"] for run in groups[0].runs])
    markup = plots.score_against_gamma(groups)
    assert titles(markup) == ["kNN (%)", "Linear probe (%)", "Effective rank of the features"]
    assert "baseline (band: 95 %)" in markup


def test_gammas_of_one_penalty_with_other_options_are_lines_of_their_own():
    runs = [
        complete(f"SRIP {side} {gamma}", {"penalty.name": "srip", "penalty.side": side, "penalty.gamma": gamma})
        for side in ("small", "rows")
        for gamma in (0.1, 0.2)
    ]
    lines = lines_of(groups_of(runs), "knn")
    assert [line.label for line in lines] == ["SRIP, side small", "SRIP, side rows"]
    assert len({line.look for line in lines}) == 2


def test_gamma_is_drawn_only_where_there_is_something_to_compare(groups, one):
    assert plots.score_against_gamma(one) == ""
    assert titles(plots.score_against_gamma(groups))[0] == "kNN (%), SimCLR"
    unscored = [replace(run, results={**run.results, "knn": None}) for group in groups for run in group.runs]
    assert "kNN" not in plots.score_against_gamma(groups_of(unscored))


@pytest.mark.parametrize(
    ("value", "label"),
    [(1.0, "1"), (0.001, "0.001"), (10_000, "10,000"), (1e-4, "10⁻⁴"), (1e6, "10⁶"), (2e-5, "2·10⁻⁵"), (0.2, "0.2")],
)
def test_labels_of_log_axes(value, label):
    assert panels.power(value) == label


def test_labels_are_not_rounded_with_the_coordinates():
    picture = panels.svg(lambda axes: axes.set_ylim(0, 0.004), 275, 180, "small values")
    assert ">0.001<" in picture


def luminance(color):
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    darker, lighter = sorted([luminance(first), luminance(second)])
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_contrasts_are_those_that_the_accessibility_guidelines_ask_for(dark):
    """WCAG 2.2 AA: 4.5 for text, 3 for what one must see to understand a figure."""
    color = {name: pair[dark] for name, pair in COLORS.items()}
    for text in ("ink", "soft", "accent"):
        for behind in ("paper", "ground"):
            assert contrast(color[text], color[behind]) >= 4.5
    assert contrast(color["ink"], color["tint"]) >= 4.5
    assert contrast(color["ink"], color["alarm"]) >= 4.5
    lines = [value for name, value in color.items() if name.startswith("series-")] + [*RAMP, NEGATIVE, POSITIVE]
    for line in lines:
        assert contrast(line, color["paper"]) >= 3
