"""`trainer.stop_on_collapse`: a run that has collapsed stops, is evaluated as it is, and stays finished."""

import csv
import json
from functools import partial
from pathlib import Path

import pytest
from bare_runs import train
from lightning.pytorch import Callback

from ortho_kernels.trainer import sweep
from ortho_kernels.trainer.config import combinations, load_config
from ortho_kernels.trainer.distributed.processes import ALONE, launch_processes
from ortho_kernels.trainer.engine.checkpoints import checkpoint_files, read_checkpoint
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.report.metrics_file import read_metrics
from ortho_kernels.trainer.runs.pretrain import pretrain

WORDS = [
    "data=outside_parts:Noise",
    "backbone.width=2",
    "trainer.batch_size=16",
    "trainer.max_steps=20",
    "trainer.log_every=1",
    "trainer.tensorboard=false",
]
COLLAPSING = [*WORDS, "method=outside_parts:Collapsing"]
STOPS = "trainer.stop_on_collapse=true"  # at step 3: three low rows over a tenth of the 20 steps


@pytest.fixture
def collapsing(tmp_path):
    return lambda *words: load_config([*COLLAPSING, f"runs={tmp_path / 'runs'}", *words])


def test_prolonged_it_goes_on_from_its_last_rate(collapsing, capsys):
    old = pretrain(collapsing(STOPS))
    last = read_metrics(old / "metrics.csv")[-1]["lr"]  # of step 3 of 20
    with pytest.raises(
        TrainerError, match=r"has 20 steps, and these words give 19: .* Give a larger trainer\.max_steps"
    ):
        pretrain(collapsing(STOPS, "trainer.max_steps=19", f"resume={old}"))
    capsys.readouterr()
    folder = pretrain(collapsing(STOPS, "trainer.max_steps=40", f"resume={old}"))
    said = capsys.readouterr().out
    assert "after step 3 to step 40." in said
    assert f"and was {last:.3g} in the last step." in said
    assert "Stopped at step 5 of 40: collapsed." in said  # low for a tenth of 40 steps
    assert steps_of(folder) == [1, 2, 3, 4, 5]


def saved_steps(folder):
    return [read_checkpoint(path)["global_step"] for path in checkpoint_files(folder / "checkpoints")]


def steps_of(folder, name="metrics.csv"):
    return [row["step"] for row in read_metrics(folder / name)]


def test_it_stops_saves_evaluates_and_says_so(collapsing, capsys):
    config = collapsing(STOPS, "evaluation.every=1", "resume=auto")
    folder = pretrain(config)
    said = capsys.readouterr().out
    assert "Stopped at step 3 of 20: collapsed." in said
    assert "has collapsed, and was stopped at step 3 of 20: the spread of its projections is 0.00" in said
    assert "was stopped at step 3 of 20" in (folder / "report.html").read_text()
    assert steps_of(folder) == [1, 2, 3]
    assert steps_of(folder, "evaluations.csv") == [3]  # an epoch has 4
    assert saved_steps(folder) == [3]
    results = json.loads((folder / "results.json").read_text())
    assert (results["collapsed"], results["steps"], results["planned_steps"]) == (True, 3, 20)
    assert 0 <= results["knn"] <= 1
    assert pretrain(config) == folder
    assert f"{folder} is finished already." in capsys.readouterr().out


def test_by_default_it_goes_on(collapsing, capsys):
    folder = train(ALONE, collapsing())
    assert saved_steps(folder) == [20]
    said = capsys.readouterr().out
    assert "Collapse: at step 3" in said
    assert "Stopped" not in said


def test_a_run_that_learns_is_left_alone(tmp_path):
    words = ["method=simclr", "method.hidden=16", "method.projection=8", STOPS, f"runs={tmp_path}"]
    assert saved_steps(train(ALONE, load_config([*WORDS, *words]))) == [20]


class Crash(Callback):
    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_step == 2:
            raise RuntimeError("the power went out")


def test_a_resume_heard_what_the_run_before_it_had(collapsing):
    """Two of the three low rows came before the crash."""
    config = collapsing(STOPS, "trainer.checkpoint_every=1", "resume=auto")
    with pytest.raises(RuntimeError, match="the power went out"):
        train(ALONE, config, [Crash()])
    assert saved_steps(train(ALONE, config))[0] == 3


def test_a_run_that_was_cut_off_before_its_evaluation_takes_no_further_step(collapsing):
    config = collapsing(STOPS, "resume=auto")
    folder = pretrain(config)
    before = json.loads((folder / "results.json").read_text())
    (folder / "results.json").unlink()
    assert pretrain(config) == folder
    after = json.loads((folder / "results.json").read_text())
    assert saved_steps(folder) == [3]
    assert (after["steps"], after["planned_steps"], after["knn"]) == (3, 20, before["knn"])


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_all_processes_stop_together(collapsing, strategy):
    config = collapsing(STOPS, f"trainer={strategy}", "trainer.accumulate=2", "trainer.timeout=60")
    folder = launch_processes(2, "gloo", 60.0, partial(train, config=config))
    assert saved_steps(folder) == [3]
    assert steps_of(folder) == [1, 2, 3]


def test_in_a_sweep_it_has_collapsed_and_not_failed(tmp_path, capsys):
    words = [*COLLAPSING, f"runs={tmp_path / 'runs'}", "trainer.stop_on_collapse=true,false"]
    varied, chosen = zip(*combinations(words), strict=True)
    folder = sweep.sweep(varied, [load_config(each) for each in chosen])
    assert "trainer.stop_on_collapse=True (collapsed)" in capsys.readouterr().out
    with open(Path(folder) / "sweep.csv", newline="") as file:
        assert [(row["collapsed"], row["error"]) for row in csv.DictReader(file)] == [("True", "")] * 2
