"""The short training of a day on a GPU, shorter still and on the CPU."""

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks.gpu import stages, training
from benchmarks.gpu.stages import Options
from ortho_kernels.trainer.config import load_config
from ortho_kernels.trainer.methods import METHODS

WORDS = ["data=digits", "method=simclr", "backbone.width=2", "trainer.batch_size=8", "trainer.tensorboard=false"]


@pytest.mark.slow
def test_each_run_leaves_its_figures(tmp_path):
    out = tmp_path / "found.jsonl"
    assert training.main([*WORDS, "trainer.max_steps=5", "--out", str(out)]) == 0
    figures = {line["case"]: line["value"] for line in map(json.loads, out.read_text().splitlines()) if "case" in line}
    assert len(figures) == 1 + len(training.RUNS) * len(training.FIGURES)
    assert figures["pipeline alone images per second"] > figures["none images per second"]
    for run in training.RUNS:
        assert figures[f"{run} images per second"] == pytest.approx(8e3 / figures[f"{run} step"], rel=0.01)
        assert 0 <= figures[f"{run} penalty share"] < 1
    assert figures["none penalty share"] == figures[f"{training.HELD} penalty"] == 0 < figures["so penalty"]


def test_what_the_goals_ask_for_comes_first():
    """A day may end before the last run."""
    assert training.RUNS[:3] == ("none", "so", "srip")


@pytest.mark.slow
def test_the_tests_of_the_trainer_ask_for_the_gpu(monkeypatch):
    """Of every method one, and what waits for nothing."""
    monkeypatch.setattr(stages, "_newer", lambda *_: False)  # by one process
    (stage,) = [each for each in stages.all_stages(Options(Path("a"), Path("b"), Path("c"))) if each.name == "trainer"]
    command = [word for word in stage.command(60) if word != "-v" and not word.startswith("--junitxml")]
    done = subprocess.run([*command, "--collect-only", "-q"], cwd=stages.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    collected = [line for line in done.stdout.splitlines() if "::" in line]
    assert {f"test_the_first_loss_of_a_method[{name}]" for name in METHODS} <= {
        line.split("::")[1] for line in collected
    }
    assert any("test_a_gpu_is_not_waited_for" in line for line in collected)


def test_an_unknown_option_is_named(capsys):
    assert training.main([*WORDS, "trainer.max_step=5"]) == 1
    assert "max_steps" in capsys.readouterr().err


def test_the_words_of_a_day_are_options_of_the_trainer():
    """Each set is a whole configuration, to which the penalty and where the data lies are added."""
    for words in (stages.TRAINING, (*stages.CIFAR10, "data.root=pictures.npz")):
        for run in training.RUNS:
            config = load_config([*words, f"penalty={'none' if run == training.HELD else run}"])
            assert config.trainer.max_steps >= 200
            assert (config.penalty.gamma > 0) == (run in ("so", "srip"))
    assert (config.method.name, config.backbone.name, config.trainer.batch_size) == ("simclr", "resnet18", 256)
