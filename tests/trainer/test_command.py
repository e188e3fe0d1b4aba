"""The command line as its user meets it: in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ortho_kernels.trainer import command, compare, sweep
from ortho_kernels.trainer.config import combinations
from ortho_kernels.trainer.errors import TrainerError

DIGITS = ["data=digits", "backbone.width=2", "method=simclr", "method.hidden=8", "trainer.max_steps=2"]
DIGITS += ["evaluation.train_images=60", "evaluation.test_images=40"]


def trainer(*words, module="ortho_kernels.trainer", cwd):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", module, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=240
    )


def test_a_comparison_prints_where_its_report_is(tmp_path):
    done = trainer(*DIGITS, module="ortho_kernels.trainer.compare", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = Path(tmp_path, done.stdout.strip().splitlines()[-1].removeprefix("Report of both: "))
    page = report.read_text()
    assert "SimCLR baseline" in page
    assert "SimCLR + SO 1e-06" in page
    assert "images/s" in done.stdout
    assert "of the step)" in done.stdout
    for noise in ("Warning", "Tip", "Trainer.fit", "GPU available"):
        assert noise not in done.stdout + done.stderr


def test_a_mistake_is_one_line_and_no_traceback(tmp_path):
    done = trainer("method=byool", cwd=tmp_path)
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("There is no method=byool. Did you mean byol? Valid: barlow_twins, byol, ")
    assert list(tmp_path.iterdir()) == []


def test_help_lists_groups_and_keys(capsys):
    command.main(["--help", "method=simclr"])
    said = capsys.readouterr().out
    assert "method=     barlow_twins | byol |" in said
    assert "experiment= mae/cifar100_vit_small |" in said
    assert "| quick/cifar10 |" in said
    assert "paper/cifar100/METHOD_wrn28_2 |" in said
    assert "method.temperature=0.2" in said


def test_several_values_become_several_runs(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(sweep, "sweep", lambda varied, configs: seen.extend(configs) or "here")
    command.main(["-m", "data=digits", "seed=0,1", "penalty.gamma=1e-7,1e-6"])
    assert [(config.seed, config.penalty.gamma) for config in seen] == [(0, 1e-7), (0, 1e-6), (1, 1e-7), (1, 1e-6)]
    assert seen[1].title == "seed=0, penalty.gamma=1e-06"
    assert "here" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "gammas"),
    [
        (["penalty=so", "penalty.gamma=1e-7,1e-6,1e-5"], [1e-7, 1e-6, 1e-5]),
        (["penalty=srip", "penalty.gamma=1e-5,1e-4,1e-3"], [1e-5, 1e-4, 1e-3]),
        (["penalty=none,so,srip,decay"], [0, 1e-6, 1e-3, 1e-6]),
        (["penalty=srip", "backbone=resnet18,wrn28_2"], [1e-3, 1e-4]),
    ],
)
def test_the_papers_search(monkeypatch, words, gammas):
    seen = []
    monkeypatch.setattr(sweep, "sweep", lambda varied, configs: seen.extend(configs))
    command.main(["-m", "experiment=paper/cifar100/byol_resnet18", *words])
    assert [config.penalty.gamma for config in seen] == gammas


def test_combinations_name_what_varies():
    assert combinations(["seed=0,1", "data=digits"])[1] == (["seed=1"], ["seed=1", "data=digits"])
    assert combinations(["data=digits"]) == [([], ["data=digits"])]


def test_a_comparison_differs_in_gamma_alone(monkeypatch):
    seen = []
    monkeypatch.setattr(compare, "compare", lambda *configs: seen.extend(configs))
    compare.main(["data=digits", "penalty=srip"])
    baseline, regularized = seen
    assert (baseline.penalty.gamma, regularized.penalty.gamma) == (0, 1e-3)
    baseline.penalty.gamma = regularized.penalty.gamma
    assert baseline == regularized


def test_a_comparison_without_a_penalty_is_refused():
    for words in (["penalty=none"], ["penalty=none", "experiment=quick/fashion_mnist"], ["penalty.gamma=0"]):
        with pytest.raises(TrainerError, match="needs a penalty"):
            compare.main(words)
