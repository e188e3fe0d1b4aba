"""metrics.csv and evaluations.csv: what a resumed run keeps, whatever columns its rows have."""

import csv
import math
import os

import pytest

from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.report import atomic_writing
from ortho_kernels.trainer.report.growing_table import GrowingTable
from ortho_kernels.trainer.report.metrics_file import MetricsFile, read_metrics


@pytest.fixture
def metrics(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv")
    yield file
    file.close()


def cells(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_rows_with_new_columns_keep_those_before_them(metrics):
    metrics.path.write_text("step,loss\n1,0.5\n2,0.25\n3,0.125\n")
    assert metrics.open(2) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]
    metrics.write({"step": 3, "knn": 0.75, "loss": 1.0})
    metrics.write({"step": 4, "knn": 1.0, "loss": 2.0})
    rows = [
        ["step", "loss", "knn"],
        ["1", "0.5", "nan"],
        ["2", "0.25", "nan"],
        ["3", "1.0", "0.75"],
        ["4", "2.0", "1.0"],
    ]
    assert cells(metrics.path) == rows
    assert [row["loss"] for row in read_metrics(metrics.path)] == [0.5, 0.25, 1.0, 2.0]


def test_columns_that_are_gone_stay(metrics):
    metrics.path.write_text("step,loss,penalty\n1,0.5,7.0\n")
    metrics.open(1)
    metrics.write({"step": 2, "penalty": 6.0})
    assert cells(metrics.path) == [["step", "loss", "penalty"], ["1", "0.5", "7.0"], ["2", "nan", "6.0"]]


def test_one_that_watches_sees_the_new_columns(metrics):
    table = GrowingTable(metrics.path)
    metrics.open(0)
    for step in (1, 2, 3):
        metrics.write({"step": step, "loss": 1 / step})
        table.look()
    metrics.write({"step": 4, "knn": 0.5, "loss": 0.1})
    table.look()
    assert table.column("step").tolist() == [1, 2, 3, 4]
    assert table.column("loss").tolist() == [1, 1 / 2, 1 / 3, 0.1]
    assert [math.isnan(value) for value in table.column("knn")] == [True, True, True, False]


def test_a_crash_while_it_is_cut_back_loses_no_row(metrics, monkeypatch):
    content = "step,loss\n1,0.5\n2,0.25\n"
    metrics.path.write_text(content)

    def fail(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_writing.os, "replace", fail)
    with pytest.raises(TrainerError, match=r"Cannot write .*metrics\.csv: No space left on device"):
        metrics.open(1)
    assert metrics.path.read_text() == content
    assert os.listdir(metrics.path.parent) == ["metrics.csv"]


@pytest.mark.parametrize("cut", range(1, len("3,0.125,0.5\n")))
def test_a_row_that_a_crash_cut_short_is_dropped(metrics, cut):
    metrics.path.write_text("step,loss,penalty\n1,0.5,0.1\n2,0.4,0.1\n" + "3,0.125,0.5\n"[:cut])
    assert [row["step"] for row in read_metrics(metrics.path)] == [1, 2]


@pytest.mark.parametrize("line", ["2,0.5", "2,0.5,1,1", "2,\0\0,1", "two,0.5,1"])
def test_a_spoiled_line_is_named_and_not_dropped(metrics, line):
    content = f"step,loss,penalty\n1,0.5,0.1\n{line}\n3,0.4,0.1\n"
    metrics.path.write_text(content)
    with pytest.raises(TrainerError, match=r"metrics\.csv: line 3 is no row of 3 numbers: .* Remove that line"):
        metrics.open(3)
    assert metrics.path.read_text() == content
