"""TensorBoard and Weights & Biases get what metrics.csv gets, under the same names."""

from typing import ClassVar

import pytest
from lightning.pytorch.loggers.logger import DummyLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ortho_kernels.trainer.report.metrics_file import read_metrics


class Recorder(DummyLogger):
    """In the place of WandbLogger, whose package need not be installed."""

    made: ClassVar = []

    def __init__(self, **options):
        super().__init__()
        self.options, self.rows = options, []
        self.made.append(self)

    def log_metrics(self, metrics, step):
        self.rows.append({"step": step, **metrics})


def test_loggers_have_the_names_and_values_of_metrics_csv(run_tiny, monkeypatch):
    monkeypatch.setattr("ortho_kernels.trainer.runs.pretrain.WandbLogger", Recorder)
    folder = run_tiny("trainer.wandb=project")
    rows = read_metrics(folder / "metrics.csv")
    (recorder,) = Recorder.made
    assert (recorder.options["project"], recorder.options["id"]) == ("project", folder.name)
    assert recorder.rows == rows
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == rows[0].keys() - {"step"}
    for name in events.Tags()["scalars"]:
        logged = {event.step: event.value for event in events.Scalars(name)}
        assert logged == {row["step"]: pytest.approx(row[name], rel=1e-6) for row in rows}  # float32 there
