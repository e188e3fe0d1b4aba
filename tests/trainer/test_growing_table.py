"""Tables that grow while they are read: whole rows alone, cut back and written again, long ones fast and without loss."""

import csv
import math

import numpy as np
import pytest
from live_runs import METRICS, metrics_row

from ortho_kernels.trainer.report.decimation import decimate
from ortho_kernels.trainer.report.growing_table import GrowingTable


def rows_of(path):
    """Read by the csv module, row by row."""
    with open(path, newline="") as file:
        return [[float(cell) for cell in line] for line in list(csv.reader(file))[1:]]


@pytest.fixture
def table(tmp_path):
    return GrowingTable(tmp_path / "metrics.csv")


def append(table, text):
    with open(table.path, "a") as file:
        file.write(text)


def test_it_grows_with_its_file(table):
    table.look()
    assert len(table) == 0
    assert len(table.column("loss")) == 0
    append(table, METRICS)  # a header that is not whole
    table.look()
    assert table.names == []
    append(table, "\n")
    for step in (1, 10, 20):
        append(table, metrics_row(step))
        table.look()
        assert table.rows.tolist() == rows_of(table.path)
    assert table.column("step").tolist() == [1, 10, 20]
    assert len(table.column("knn")) == 0


def test_a_row_in_the_middle_of_being_written_waits(table):
    row = metrics_row(2)
    append(table, f"{METRICS}\n{metrics_row(1)}{row[:11]}")
    table.look()
    assert table.column("step").tolist() == [1]
    append(table, row[11:])
    table.look()
    assert table.column("step").tolist() == [1, 2]


@pytest.mark.parametrize("before_the_next_look", [0, 1, 9])  # rows that the resumed run has written again
def test_a_resumed_run_is_read_anew(table, before_the_next_look):
    table.path.write_text(f"{METRICS}\n" + "".join(metrics_row(step, loss=3.0) for step in range(1, 7)))
    table.look()
    kept = f"{METRICS}\n" + "".join(metrics_row(step, loss=3.0) for step in range(1, 4))
    table.path.write_text(kept + "".join(metrics_row(4 + i, loss=2.5) for i in range(before_the_next_look)))
    table.look()
    assert table.rows.tolist() == rows_of(table.path)
    append(table, metrics_row(50))
    table.look()
    assert table.rows.tolist() == rows_of(table.path)
    table.path.unlink()
    table.look()
    assert len(table) == 0


def test_spoiled_rows_are_left_out_and_empty_cells_are_nan(table):
    table.path.write_bytes(b"step,knn,rankme\n1,,2.0\n2,0.5\n\x00\x00\n3,x,1\n4,nan,inf\n5,0.5,1.5\n")
    table.look()
    assert table.column("step").tolist() == [1, 4, 5]
    assert np.isnan(table.column("knn")).tolist() == [True, True, False]
    assert table.column("rankme").tolist() == [2.0, math.inf, 1.5]


@pytest.mark.parametrize("columns", [1, 7, 100])
def test_a_decimated_curve_reaches_as_high_and_low_in_every_column(columns):
    generator = np.random.default_rng(0)
    x = np.cumsum(generator.integers(1, 20, 5000)).astype(float)
    y = generator.normal(size=5000)
    y[1234], y[4000] = 50.0, -70.0
    xs, ys = decimate(x, y, columns)
    assert len(xs) <= 4 * columns
    assert (np.diff(xs) >= 0).all()

    def ends(x_of_points, y_of_points):
        found = {}
        for a, b in zip(x_of_points.tolist(), y_of_points.tolist(), strict=True):
            column = min(columns - 1, int((a - x[0]) / (x[-1] - x[0]) * columns))
            low, high = found.get(column, (b, b))
            found[column] = min(low, b), max(high, b)
        return found

    assert ends(xs, ys) == ends(x, y)
    assert (xs[0], ys[0], xs[-1], ys[-1]) == (x[0], y[0], x[-1], y[-1])


def test_a_short_curve_keeps_its_points_and_what_is_not_finite_is_a_gap():
    x, y = np.arange(4.0), np.array([1.0, np.inf, np.nan, 2.0])
    xs, ys = decimate(x, y, columns=4)
    assert xs.tolist() == [0, 1, 2, 3]
    assert np.isnan(ys).tolist() == [False, True, True, False]
    assert decimate(np.empty(0), np.empty(0), columns=4)[0].tolist() == []
    _, ys = decimate(np.arange(100.0), np.full(100, np.nan), columns=4)
    assert np.isnan(ys).all()
    _, ys = decimate(np.full(100, 7.0), np.arange(100.0), columns=4)  # one step alone
    assert (np.nanmin(ys), np.nanmax(ys)) == (0, 99)
