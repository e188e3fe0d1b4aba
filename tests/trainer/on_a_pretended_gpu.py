"""A run on a pretended GPU, and the same on the CPU."""

import pytest
from bare_runs import train
from between_rows import config_of, train_watched
from pretended_gpu import PretendedGpu

from ortho_kernels.trainer.distributed.processes import ALONE
from ortho_kernels.trainer.report.metrics_file import read_metrics

ROUNDING = 1e-4
DIFFERING = ("images_per_second", "penalty_share")  # what is timed


def train_on_both(folder, *words):
    """Trains on both, asserts that their figures are the same to rounding, and returns the waits of the GPU's steps."""
    run, waits = train_on_gpu(folder, *words)
    assert_alike(run, train(ALONE, config_of(folder / "cpu", ["trainer=cpu", *words])))
    return waits


def train_on_gpu(folder, *words):
    """The run on a pretended GPU, and the waits of its steps 2 and 3."""
    with PretendedGpu():
        return train_watched(ALONE, config_of(folder / "gpu", ["trainer=gpu", *words]))


def assert_alike(run, other, rounding=ROUNDING):
    """That the figures of two runs are the same to rounding, but those that are timed."""
    for name in ("metrics.csv", "evaluations.csv"):
        assert (run / name).is_file() == (other / name).is_file()
        if (run / name).is_file():
            for row, expected in zip(read_metrics(run / name), read_metrics(other / name), strict=True):
                for key in row.keys() - {*DIFFERING, "seconds"}:
                    assert row[key] == pytest.approx(expected[key], rel=rounding, abs=rounding, nan_ok=True), key
