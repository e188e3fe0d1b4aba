"""The tables of the pages are those of the CSV files beside them."""

import csv
import json

import pytest

from benchmarks import tables

ORIGIN = {"machine": "a CPU", "commit": "abc"}


@pytest.fixture
def docs(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "DOCS", tmp_path)
    return tmp_path


def write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def penalty_rows(model="resnet18"):
    return [
        {"penalty": "so", "model": model, "rival": rival, "phase": "both", "median_ms": str(10 * times),
         "times_ours": str(times), "launches": "5", "peak_extra_mib": "1.00", "value_error": "1e-8",
         "gradient_error": "2e-7", **ORIGIN}
        for rival, times in {"published": 20, "eager": 2.54, "compiled": 2, "ours": 1}.items()
    ]  # fmt: skip


def section(name, within=""):
    return f"before\n<!-- figures: {name} -->\n{within}<!-- end of figures -->\nafter\n"


def test_the_pages_have_the_tables_of_the_csv_files():
    for page in tables.PAGES:
        assert page.read_text() == tables.fill(page.read_text()), f"{page.name}: python -m benchmarks.tables"


def test_every_section_is_on_a_page():
    names = {found[2] for page in tables.PAGES for found in tables.SECTION.finditer(page.read_text())}
    assert names == set(tables.SECTIONS)


def test_a_table_takes_the_place_of_the_old_one(docs):
    write(docs / "penalties.csv", penalty_rows())
    filled = tables.fill(section("speed", "old figures\n"))
    assert "| SO | ResNet-18 | 10.0 ms | 20.0x | 2.5x | 2.0x |\n\na CPU; commit abc.\n<!-- end" in filled
    assert "old figures" not in filled
    assert tables.fill(filled) == filled


def test_a_section_without_figures_says_so(docs):
    assert "Not measured yet: `make figures`." in tables.fill(section("roofline"))


def test_figures_of_two_commits_make_no_table(docs):
    write(docs / "penalties.csv", [*penalty_rows(), *[row | {"commit": "def"} for row in penalty_rows("resnet50")]])
    with pytest.raises(ValueError, match="has rows of several machines or commits"):
        tables.fill(section("speed"))


def test_runs_of_the_newest_commit_are_collected(tmp_path):
    kept = ("raw_pixels_knn", "knn", "linear_probe", "representation_effective_rank", "penalty_share")
    about = {"processor": "a CPU", "cores": "2", "threads": "2", "torch": "2.14"}
    for commit, run, label in (("old", "20260101-1", "a"), ("new", "20260102-1", "a"), ("new", "20260102-2", "b")):
        (tmp_path / commit / run).mkdir(parents=True)
        results = {"label": label, "machine": about, **dict.fromkeys(kept, 0.5)}
        (tmp_path / commit / run / "results.json").write_text(json.dumps(results))
    rows = tables.collect_runs(tmp_path)
    assert [(row["label"], row["commit"]) for row in rows] == [("a", "new"), ("b", "new")]
    assert tables.pretraining(rows)[-1] == "| effective rank of the features | 0.5 | 0.5 |"
