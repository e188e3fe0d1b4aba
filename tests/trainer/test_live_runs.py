"""A run seen from outside: its state, its times, its curves."""

import json
import time

import numpy as np
import pytest
from lightning.pytorch import Callback
from live_runs import age, finish, write_evaluations, write_run

from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.report.live_run import CURVES, LiveRun, State, curves_of, labels_of, steps_of
from ortho_kernels.trainer.runs.lock import is_held


def look_at(folder, held=True):
    run = LiveRun(folder)
    run.look(held)
    return run


@pytest.mark.parametrize(
    ("rows", "held", "seconds_ago", "results", "state"),
    [
        (0, True, 0, False, State.STARTING),
        (20, True, 0, False, State.TRAINING),
        (20, True, 100, False, State.TRAINING),
        (20, True, 130, False, State.STALLED),
        (100, True, 0, False, State.EVALUATING),
        (20, False, 0, False, State.STOPPED),
        (100, False, 0, True, State.FINISHED),
        (100, True, 0, True, State.FINISHED),  # the report is being written
    ],
)
def test_states(tmp_path, rows, held, seconds_ago, results, state):
    folder = write_run(tmp_path / "run", rows)
    age(folder, seconds_ago)
    if results:
        finish(folder)
    assert look_at(folder, held).state is state


def test_a_slow_run_is_given_more_time_between_rows(tmp_path):
    folder = write_run(tmp_path / "run", rows=4, started=time.time() - 400)  # a row every 100 s
    age(folder, 130)
    assert look_at(folder).state is State.TRAINING
    age(folder, 2000)
    assert look_at(folder).state is State.STALLED


def test_times(tmp_path):
    run = look_at(write_run(tmp_path / "run", rows=20, every=10, steps=1000))  # 200 steps in 100 s
    assert run.seconds_so_far() == pytest.approx(100, abs=2)
    assert run.seconds_left() == pytest.approx(400, abs=2)
    resumed = look_at(write_run(tmp_path / "resumed", rows=20, steps=1000, start=150))  # 50 steps in 100 s
    assert resumed.seconds_left() == pytest.approx(1600, abs=2)
    fresh = look_at(write_run(tmp_path / "fresh", rows=20, steps=1000, start=200))  # no row since it resumed
    assert fresh.seconds_left() is None
    stopped = look_at(write_run(tmp_path / "stopped", rows=20), held=False)
    assert stopped.seconds_left() is None
    assert stopped.seconds_so_far() == pytest.approx(100, abs=2)
    finish(stopped.folder)
    assert look_at(stopped.folder).seconds_so_far() == 90.0


def test_a_run_that_does_not_say_where_it_leads(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "progress.json").unlink()
    run = look_at(folder)
    assert (run.label, run.step, run.steps) == ("run", 200, None)
    assert run.seconds_left() is None
    assert run.seconds_so_far() is None
    finish(folder)
    run.look(held=False)
    assert (run.label, run.steps) == ("SimCLR", 1000)


def test_curves(tmp_path):
    run, other = (look_at(write_run(tmp_path / name)) for name in "ab")
    assert [curve.column for curve in curves_of([run])] == ["loss", "penalty_raw", "spread", "lr", "images_per_second"]
    write_evaluations(other.folder)
    other.look(held=True)
    assert curves_of([run, other]) == list(CURVES)
    knn = next(curve for curve in CURVES if curve.column == "knn")
    steps, values = other.curve(knn)
    assert steps.tolist() == [50, 100, 150, 200]
    np.testing.assert_allclose(values, [50, 60, 70, 80])
    assert len(run.curve(knn)[0]) == 0
    assert steps_of([run, other]) == (10, 200)


def test_scores_of_a_run_without_labels_are_left_out(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "evaluations.csv").write_text("step,epoch,knn,effective_rank,rankme,seconds\n50,1,,3.0,4.0,1.0\n")
    columns = [curve.column for curve in curves_of([look_at(folder)])]
    assert "knn" not in columns
    assert {"effective_rank", "rankme"} <= set(columns)


def test_runs_that_are_called_alike_are_told_apart_by_their_folders(tmp_path):
    runs = [look_at(write_run(tmp_path / name, label=label)) for name, label in (("a", "X"), ("b", "X"), ("c", "Y"))]
    assert labels_of(runs) == ["X (a)", "X (b)", "Y"]


def test_a_label_changes_no_terminal(tmp_path):
    assert look_at(write_run(tmp_path / "run", label="a\x1b[2Jb\nc")).label == r"a\x1b[2Jb\nc"


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(TrainerError, match=r"is no run: there is no config.yaml"):
        LiveRun(tmp_path)


class Watcher(Callback):
    """Looks at a run after each of its steps."""

    def __init__(self, runs):
        self.runs, self.seen = runs, []

    def on_train_batch_end(self, trainer, module, *_):
        (folder,) = self.runs.iterdir()
        run = look_at(folder, held=is_held(folder))
        self.seen.append((run.state, run.step, run.steps))


def test_a_real_run_is_seen_while_it_trains(run_tiny, tmp_path):
    watcher = Watcher(tmp_path / "runs")
    folder = run_tiny("trainer.max_steps=3", "title=seen", callbacks=[watcher])
    # Callbacks of the caller come before the one that writes the row of a step.
    assert watcher.seen == [(State.STARTING, 0, 3), (State.TRAINING, 1, 3), (State.TRAINING, 2, 3)]
    run = look_at(folder, held=is_held(folder))
    assert (run.state, run.step, run.label) == (State.FINISHED, 3, "seen")
    assert json.loads((folder / "progress.json").read_text()).keys() == {"label", "steps", "start", "started"}
