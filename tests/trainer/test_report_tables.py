"""The tables of a page: values, intervals and differences where they belong, however many runs there are."""

import html
import re

import numpy as np
import pytest
from made_up_runs import made_up
from scipy import stats

from ortho_kernels.trainer.report.page import render
from ortho_kernels.trainer.report.text_summary import summary

PENALTIES = {
    "none": {"penalty.gamma": 0.0},
    "so": {},
    "srip": {"penalty.name": "srip", "penalty.gamma": 1e-2, "penalty.iterations": 2},
    "decay": {"penalty.name": "decay"},
}


@pytest.fixture(autouse=True)
def _without_figures(monkeypatch):
    monkeypatch.setattr("ortho_kernels.trainer.report.plots.panels.svg", lambda *_: "<svg></svg>")


def scores(method, penalty, seed):
    """Of one run, the same each time."""
    random = np.random.default_rng([len(method), len(penalty), ord(penalty[1]), seed])
    return round(0.8 - 0.05 * (method == "byol") + 0.02 * (penalty == "so") + random.normal(0, 0.004), 4)


def study(penalties=tuple(PENALTIES), methods=("simclr", "byol"), seeds=3):
    return [
        made_up(
            f"seed={seed}, method={method}, penalty={penalty}",
            {**PENALTIES[penalty], "method.name": method, "seed": seed, f"method.only_{method}": 1},
            knn=scores(method, penalty, seed),
            test_images=10000,
        )
        for method in methods
        for penalty in penalties
        for seed in range(seeds)
    ]


def rows(page, section):
    """The cells of a section's tables, as text without tags."""
    [content] = re.findall(rf"<section><h2>{section}</h2>(.*?)</section>", page, re.DOTALL)
    every = re.findall(r"<tr.*?>(.*?)</tr>", content, re.DOTALL)
    cells = (re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.DOTALL) for row in every)
    return [[html.unescape(re.sub(r"<.*?>", "", cell)) for cell in row] for row in cells]


def test_twenty_four_runs_are_eight_rows_with_means_and_intervals():
    page = render(study())
    assert "<h1>24 runs in 8 groups</h1>" in page
    table = rows(page, "Results")
    assert table[0] == ["", "kNN", "linear probe", "most frequent class"]
    penalties = [f"penalty={name}" for name in PENALTIES]
    assert [row[0] for row in table[1:11]] == ["method=simclr", *penalties, "method=byol", *penalties]
    values = [scores("byol", "so", seed) for seed in range(3)]
    half = stats.t.ppf(0.975, 2) * stats.sem(values)
    assert table[8][1] == f"{100 * np.mean(values):.2f} % ± {100 * half:.2f}"


def test_differences_stand_under_what_they_are_against():
    table = rows(render(study()), "Differences")
    assert table[0][:2] == ["", "kNN, points"]
    assert [row[0] for row in table[1:]] == [
        "method=simclr: against the baseline (penalty=none, 3 seeds in common)",
        *("penalty=so", "penalty=srip", "penalty=decay"),
        "method=byol: against the baseline (penalty=none, 3 seeds in common)",
        *("penalty=so", "penalty=srip", "penalty=decay"),
        "method=simclr: against the control (penalty=decay, 3 seeds in common)",
        *("penalty=so", "penalty=srip"),
        "method=byol: against the control (penalty=decay, 3 seeds in common)",
        *("penalty=so", "penalty=srip"),
    ]
    first, second = ([scores("byol", penalty, seed) for seed in range(3)] for penalty in ("none", "so"))
    low, high = stats.ttest_rel(second, first).confidence_interval(0.95)
    expected = [f"{100 * value:+.2f}".replace("-", "−") for value in (np.mean(np.subtract(second, first)), low, high)]
    assert table[6][1] == "{} ({} to {})".format(*expected)


def test_what_excludes_zero_looks_so():
    runs = study(penalties=("none", "so", "decay"), methods=("simclr",))
    for run in runs:
        seed, penalty = run.results["settings"]["seed"], run.label.rpartition("=")[2]
        run.results["knn"] = (
            0.8 + 0.01 * seed + {"none": 0, "so": 0.02 + 0.001 * seed, "decay": 0.01 * (-1) ** seed}[penalty]
        )
    page = render(runs)
    assert '<td class="difference clear">+2.10 <' in page  # 2.0, 2.1 and 2.2
    assert '<td class="difference unclear">+0.33 <' in page  # 1, -1 and 1
    assert "Bold where the 95 % interval of a difference excludes 0" in page


def test_a_few_groups_are_columns():
    page = render(study(penalties=("none", "so", "srip"), methods=("simclr",)))
    table = rows(page, "Results")
    assert table[0] == ["method=simclr", "penalty=none", "penalty=so", "penalty=srip"]
    assert table[2][0] == "kNN on frozen features"


def test_fewer_common_seeds_are_said():
    runs = [run for run in study(methods=("simclr",)) if "seed=2, method=simclr, penalty=so" not in run.label]
    assert "penalty=so (2 seeds)" in [row[0] for row in rows(render(runs), "Differences")]


def test_scores_against_gamma_have_a_table():
    runs = [
        made_up(f"gamma {gamma}", {"penalty.gamma": gamma, "seed": seed}, knn=0.5 + gamma + 0.01 * seed)
        for gamma in (1e-2, 0.0, 1e-1)
        for seed in range(2)
    ]
    table = rows(render(runs), "Score against gamma")
    assert table[0] == ["gamma", "kNN", "− baseline", "linear probe", "− baseline", "effective rank", "− baseline"]
    assert [row[0] for row in table[1:]] == ["0", "0.01", "0.1"]
    assert table[1][1:3] == ["50.50 % ± 6.35", ""]
    assert table[3][2].startswith("+10.00")


def test_later_evaluations_have_tables_with_differences():
    runs = study(methods=("simclr",))
    for run in runs:
        run.evaluated["linear-cifar10"] = {
            "accuracy": run.results["knn"] / 2, "data": "cifar10", "train_images": 50, "test_images": 10000
        }  # fmt: skip
    table = rows(render(runs), "Later evaluations")
    assert table[0] == ["", "linear, cifar10"]
    values = [scores("simclr", "so", seed) / 2 for seed in range(3)]
    half = stats.t.ppf(0.975, 2) * stats.sem(values)
    assert ["penalty=so", f"{100 * np.mean(values):.2f} % ± {100 * half:.2f}"] in table
    assert ["", "linear, cifar10, points"] in table


def test_parts_that_were_judged_apart_have_their_own_tables():
    runs = [*study(("none", "so"), ("simclr",)), *(made_up("stl", {"data.name": "stl10", "seed": i}) for i in range(2))]
    page = render(runs)
    assert "These runs were judged in 2 ways" in page
    assert len(rows(page, "data.name=digits, test_images=10000: Results")[0]) == 4  # two groups and their difference
    assert rows(page, "data.name=stl10, test_images=50: Results")[0] == ["", "stl"]
    assert "Configuration" in page


def test_one_configuration_is_whole_and_the_others_are_what_differs():
    page = render(study())
    assert page.count("<pre>") == 1
    table = rows(page, "Configuration")
    assert table[0] == ["", "method.name", "penalty.name", "penalty.gamma"]
    assert table[3] == ["method=simclr, penalty=srip", "simclr", "srip", "0.01"]
    assert "method.only_byol" not in page
    assert len(rows(page, "Runs")) == 25


def test_groups_that_differ_in_more_settings_than_they_are_stand_as_columns():
    page = render([made_up("one"), made_up("other", {f"trainer.option{i}": i for i in range(5)})])
    table = rows(page, "Configuration")
    assert table[0] == ["", "one", "other"]
    assert table[1:] == [[f"trainer.option{i}", "–", str(i)] for i in range(5)]


def test_machines_are_columns_where_they_differ():
    page = render([made_up("one"), made_up("two", {"seed": 1}, machine={"processor": "another", "lightning": "2.5"})])
    assert rows(page, "Machine") == [
        ["", "1 run", "1 run"],
        ["processor", "made up", "another"],
        ["torch", "2.10", "–"],
        ["lightning", "–", "2.5"],
    ]
    assert "Times of different machines do not compare" in page


def test_runs_of_earlier_versions_are_taken():
    old = made_up("old", penalty_share=None, planned_steps=None, representation_dimensions=None)
    del old.results["settings"]["penalty.name"]
    new = made_up("new", {"seed": 1}, representation_alpha_req=1.5, representation_lidar=None)
    page = render([old, new])
    assert ["α-ReQ", "–", "1.500"] not in rows(page, "Results")
    assert "old" in summary([old, new])


def test_runs_without_labels_have_no_scores():
    gone = dict.fromkeys(("knn", "linear_probe", "chance", "train_images", "test_images"))
    runs = [made_up("none", {"penalty.gamma": 0.0}, **gone), made_up("so", **gone)]
    page = render(runs)
    assert "kNN" not in page.replace("kNN, effective rank and RankMe", "")
    assert "Nothing is scored, since there are no labels" in page
    assert "kNN" not in summary(runs)


def test_the_terminal_has_groups_differences_and_their_meaning():
    lines = summary(study()).splitlines()
    assert lines[0].split("  ")[-1].strip() == "penalty's share"
    assert sum(line.startswith("method=") and "3 seeds" in line for line in lines) == 8
    assert sum(" − penalty=" in line for line in lines) == 10
    assert len({len(line) for line in lines[:19]}) == 1
    starred = any(cell.endswith(")*") for line in lines for cell in line.split("  "))
    assert ("* The 95 % interval of the difference excludes 0." in lines) == starred


def test_groups_that_were_judged_apart_have_no_difference_in_the_terminal():
    text = summary([made_up("one"), made_up("two", {"data.name": "cifar10"}, knn=0.75, test_images=80)])
    assert "difference" not in text
    assert "points" not in text
    first, second, said = text.split("\n\n")
    assert first.startswith("data.name=digits, test_images=50:\n")
    assert second.startswith("data.name=cifar10, test_images=80:\n")
    assert "75.00 %" in second
    assert "75.00 %" not in first
    assert said.startswith("These runs were judged in 2 ways")


def test_a_group_of_seeds_has_its_mean_in_the_terminal():
    lines = summary(study(("so",), ("simclr",))).splitlines()
    values = [scores("simclr", "so", seed) for seed in range(3)]
    assert any(f"{100 * np.mean(values):.2f} % ± " in line for line in lines)
