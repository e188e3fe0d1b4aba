"""An interrupted run ends with the same bits as one that never stopped."""

import json
import shutil
import signal

import pytest
import torch
from lightning.pytorch import Callback

from ortho_kernels.trainer.engine.checkpoints import checkpoint_files, read_checkpoint
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.report.metrics_file import read_metrics

# 1348 // 450 = 2 batches an epoch: steps 3 and 5 lie in the middle of one, 4 at the end of one.
SHORT = ["trainer.batch_size=450", "trainer.max_steps=6", "trainer.checkpoint_every=1", "backbone.width=2"]
TIMINGS = {"images_per_second", "penalty_share"}


class Crash(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_step == self.step:
            raise RuntimeError("the power went out")


def final(folder):
    checkpoint = read_checkpoint(checkpoint_files(folder / "checkpoints")[0])
    rows = [{k: v for k, v in row.items() if k not in TIMINGS} for row in read_metrics(folder / "metrics.csv")]
    return checkpoint, rows


def assert_same(ours, theirs, path=""):
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), path
        for key in ours:
            assert_same(ours[key], theirs[key], f"{path}/{key}")
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs), path
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(a, b, f"{path}/{i}")
    elif isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), path
    else:
        assert ours == theirs, path


@pytest.mark.parametrize(
    "words",
    [
        ["method=byol", "penalty=srip", "penalty.warm_start=true"],
        ["method=simclr", "penalty=srip", "optimizer=adamw"],
        ["method=simclr", "optimizer=lars", "trainer.accumulate=2"],
        ["method=simclr", "trainer.precision=64-true"],
        ["method=simsiam", "method.constant_predictor_rate=true", "optimizer.final_lr=0.01", "trainer.clip=0.1"],
        ["method=nnbyol", "method.queue=700", "trainer.accumulate=2"],  # which the first step fills
        [
            "method=dino",
            "method.prototypes=16",
            "data.views.local.count=2",
            "optimizer=adamw",
            "optimizer.final_weight_decay=0.4",
        ],
        [
            "method=swav",
            "method.prototypes=16",
            "data.views.local.count=1",
            "method.queue=700",
            "method.queue_start=0.5",
        ],
        ["method=mae", "backbone=vit_tiny", "optimizer=adamw", "optimizer.betas=[0.9,0.95]"],
    ],
)
def test_bit_identical_wherever_it_stops(run_tiny, tmp_path, words):
    words = [*(SHORT[:-1] if "backbone=vit_tiny" in words else SHORT), *words]
    whole = final(run_tiny(*words))
    shutil.rmtree(tmp_path / "runs")
    for step in (3, 4):
        with pytest.raises(RuntimeError, match="the power went out"):
            run_tiny(*words, "resume=auto", callbacks=[Crash(step)])
    folder = run_tiny(*words, "resume=auto")
    assert len(list((tmp_path / "runs").iterdir())) == 1
    checkpoint, rows = final(folder)
    assert_same(rows, whole[1])
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "loops", "global_step"):
        assert_same(checkpoint[key], whole[0][key], key)


def test_rows_after_the_checkpoint_are_written_anew(run_tiny):
    words = [word for word in SHORT if "checkpoint_every" not in word] + ["trainer.checkpoint_every=2"]
    with pytest.raises(RuntimeError):
        run_tiny(*words, callbacks=[Crash(3)])
    folder = run_tiny(*words, "resume=auto")
    assert [row["step"] for row in read_metrics(folder / "metrics.csv")] == [1, 2, 3, 4, 5, 6]


def test_a_signal_saves_and_says_how_to_go_on(run_tiny):
    class Stop(Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            if trainer.global_step == 2:
                signal.raise_signal(signal.SIGTERM)

    words = [*SHORT, "trainer.checkpoint_every=100"]
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainerError, match=r"SIGTERM at step 3.*resume=auto"):
        run_tiny(*words, callbacks=[Stop()])
    assert signal.getsignal(signal.SIGTERM) == before
    folder = run_tiny(*words, "resume=auto")
    assert_same(final(folder)[0]["state_dict"], final(run_tiny(*words))[0]["state_dict"])


def test_auto_starts_a_new_run_if_there_is_none_and_leaves_a_finished_one_alone(run_tiny, capsys):
    first = run_tiny("resume=auto")
    stamp = (first / "results.json").stat().st_mtime_ns
    assert run_tiny("resume=auto") == first
    assert (first / "results.json").stat().st_mtime_ns == stamp
    assert "finished already" in capsys.readouterr().out


def test_a_run_that_stopped_before_its_evaluation_is_evaluated(run_tiny):
    folder = run_tiny("resume=auto")
    results = json.loads((folder / "results.json").read_text())
    (folder / "results.json").unlink()
    rows = (folder / "metrics.csv").read_text()
    assert run_tiny("resume=auto") == folder
    again = json.loads((folder / "results.json").read_text())
    assert (again["knn"], again["penalty_raw"]) == (results["knn"], results["penalty_raw"])
    assert (folder / "metrics.csv").read_text() == rows


def test_auto_does_not_take_up_a_run_of_another_configuration(run_tiny):
    assert run_tiny("resume=auto", "seed=1") != run_tiny("resume=auto", "seed=2")


def test_another_configurations_run_is_refused_with_the_keys_that_differ(run_tiny):
    folder = run_tiny("seed=1")
    with pytest.raises(TrainerError, match=r"(?s)penalty\.gamma: 1e-06 -> 0\.1.*seed: 1 -> 2"):
        run_tiny("seed=2", "penalty.gamma=0.1", f"resume={folder}")


def test_options_that_decide_nothing_do_not_block_a_resume(run_tiny):
    with pytest.raises(RuntimeError, match="the power went out"):
        run_tiny(*SHORT, "resume=auto", callbacks=[Crash(3)])
    others = ["log_every=2", "threads=1", "workers=1", "checkpoint_every=2", "keep_checkpoints=3", "timeout=60"]
    folder = run_tiny(*SHORT, *[f"trainer.{word}" for word in others], "trainer.tensorboard=false", "resume=auto")
    assert [row["step"] for row in read_metrics(folder / "metrics.csv")] == [1, 2, 3, 4, 6]
    assert_same(final(folder)[0]["state_dict"], final(run_tiny(*SHORT))[0]["state_dict"])


def test_a_checkpoint_that_names_options_that_decide_nothing_is_resumed(run_tiny):
    folder = run_tiny(*SHORT)
    (folder / "results.json").unlink()
    newest = checkpoint_files(folder / "checkpoints")[0]
    checkpoint = read_checkpoint(newest)
    checkpoint["configuration"]["trainer"] |= {"log_every": 7, "workers": 3}
    torch.save(checkpoint, newest)
    assert run_tiny(*SHORT, f"resume={folder}") == folder
