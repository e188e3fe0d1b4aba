"""Sweeps: every combination, one table, failures that stop nobody else, and a second call that does what is missing."""

import csv
import multiprocessing

import pytest

from ortho_kernels.trainer import compare, sweep
from ortho_kernels.trainer.config import SweepSettings, combinations, load_config
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.runs.launchers import Outcome, launch

WORDS = [
    "data=digits",
    "method=simclr",
    "backbone.width=2",
    "method.hidden=8",
    "trainer.max_steps=1",
    "trainer.threads=1",
    "evaluation.train_images=60",
    "evaluation.test_images=40",
]


def plan(folder, *words):
    varied, chosen = zip(*combinations([*WORDS, *words, f"runs={folder}"]), strict=True)
    titles = [f"title='{', '.join(words)}'" if words else "title=null" for words in varied]
    return varied, [load_config([title, *words]) for title, words in zip(titles, chosen, strict=True)]


@pytest.fixture(autouse=True)
def _without_report(monkeypatch):
    monkeypatch.setattr("ortho_kernels.trainer.runs.pretrain.write_report", lambda path, runs: None)
    monkeypatch.setattr(sweep, "write_report", lambda path, runs, missing: None)


def rows(folder):
    with open(folder / "sweep.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_ends_in_one_table_and_can_be_taken_up_again(tmp_path, capsys):
    words = ["seed=0,1", "penalty.gamma=0,1e-6", "resume=auto"]
    folder = sweep.sweep(*plan(tmp_path, *words))
    said = capsys.readouterr().out
    assert [(row["seed"], row["penalty.gamma"]) for row in rows(folder)] == [
        ("0", "0"),
        ("0", "1e-06"),
        ("1", "0"),
        ("1", "1e-06"),
    ]
    assert all(0 <= float(row["knn"]) <= 1 for row in rows(folder))
    assert "penalty.gamma=1e-06, 2 seeds" in said
    assert "±" in said
    again = sweep.sweep(*plan(tmp_path, *words))
    assert capsys.readouterr().out.count("is finished already") == 4
    assert [row["knn"] for row in rows(again)] == [row["knn"] for row in rows(folder)]


def test_a_run_that_fails_stops_no_other(tmp_path, capsys):
    with pytest.raises(TrainerError, match=r"1 of 2 runs failed.*resume=auto"):
        sweep.sweep(*plan(tmp_path, "trainer.batch_size=5000,16"))
    [folder] = tmp_path.glob("sweep-*")
    failed, done = rows(folder)
    assert "larger than the data" in failed["error"]
    assert float(done["knn"]) >= 0
    assert "failed: trainer" in capsys.readouterr().out


@pytest.mark.slow
def test_joblib_runs_several_at_a_time(tmp_path):
    _, configs = plan(tmp_path, "seed=0,1,2")
    outcomes = launch(SweepSettings(launcher="joblib", jobs=2), configs, _titled)
    assert [str(outcome.folder) for outcome in outcomes] == ["seed=0", "seed=1", "seed=2"]


def _titled(config, threads):
    own = multiprocessing.get_context("spawn").Process(target=len, args=("as trainer=ddp starts them",))
    own.start()
    own.join()
    return Outcome(config.title if own.exitcode == 0 else None)


def test_submitit_hands_out_jobs(tmp_path):
    pytest.importorskip("submitit", reason="submitit is not installed")
    _, configs = plan(tmp_path, "trainer.batch_size=5000,6000")
    settings = SweepSettings(launcher="submitit", cluster="debug")
    outcomes = launch(settings, configs, sweep.attempt)
    assert ["larger than the data" in outcome.error for outcome in outcomes] == [True, True]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"launcher": "submitit", "cluster": "fog"}, "sweep.cluster=fog: .*fog"),
        ({"launcher": "submitit", "cluster": "debug", "slurm": {"foo": 3}}, r"sweep.slurm.*'foo' need"),
        ({"launcher": "submitit", "cluster": "debug", "slurm": {"timeout_min": "long"}}, 'sweep.slurm.*"timeout_min"'),
    ],
)
def test_what_a_launcher_does_not_take_is_said(tmp_path, options, said):
    pytest.importorskip("submitit", reason="submitit is not installed")
    _, configs = plan(tmp_path, "seed=0,1")
    with pytest.raises(TrainerError, match=said):
        launch(SweepSettings(**options), configs, _titled)


def test_nested_options_of_slurm_are_plain_ones(tmp_path, monkeypatch):
    submitit = pytest.importorskip("submitit", reason="submitit is not installed")
    taken = {}
    monkeypatch.setattr(submitit.AutoExecutor, "update_parameters", lambda self, **given: taken.update(given))
    words = [
        "sweep.slurm={slurm_additional_parameters: {account: lab}}",
        "sweep.launcher=submitit",
        "sweep.cluster=debug",
    ]
    _, configs = plan(tmp_path, "seed=0", *words)
    launch(configs[0].sweep, configs, _titled)
    assert type(taken["slurm_additional_parameters"]) is dict


def test_a_comparison_is_no_sweep():
    with pytest.raises(TrainerError, match="compares two runs and takes no -m"):
        compare.main(["-m", "seed=0,1", "penalty=so"])
