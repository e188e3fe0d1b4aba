"""A finished run is prolonged: a run of its own goes on where it ended, with the schedule of its new length."""

import json
import math
import shutil
from functools import partial

import pytest
import torch
from bare_runs import train
from lightning.pytorch import Callback
from test_resume import Crash, assert_same, final
from tiny import tiny_words

from ortho_kernels.trainer.config import load_config
from ortho_kernels.trainer.distributed.processes import launch_processes
from ortho_kernels.trainer.engine.checkpoints import checkpoint_files, read_checkpoint
from ortho_kernels.trainer.engine.optimizers import AdamWSettings, build_optimizer, build_schedule
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.report.metrics_file import read_metrics
from ortho_kernels.trainer.runs.pretrain import pretrain

# 1348 // 450 = 2 batches an epoch: step 3 lies in the middle of one.
SHORT = ["trainer.batch_size=450", "trainer.checkpoint_every=1", "backbone.width=2", "trainer.workers=0"]
# A schedule that does not depend on the length of the run.
LEVEL = ["optimizer.warmup=0", "optimizer.final_lr=1"]
LEVEL_TEACHER = ["method.momentum=0.9", "method.final_momentum=0.9"]


class Numbers(Callback):
    """The numbers of the batches that a run takes."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, module, batch, index):
        self.seen.append(batch[1])


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "words",
    [
        ["method=byol", *LEVEL_TEACHER, "penalty=srip", "penalty.warm_start=true"],
        ["method=nnclr", "method.queue=700", "trainer.accumulate=2", "optimizer=adamw"],
    ],
)
def test_with_a_level_schedule_it_has_the_bits_of_a_long_run(run_tiny, words):
    words = [*SHORT, *LEVEL, *words]
    whole, rows = final(run_tiny(*words, "trainer.max_steps=6"))
    old = run_tiny(*words, "trainer.max_steps=3")
    before, numbers = contents(old), Numbers()
    prolonged = run_tiny(*words, "trainer.max_steps=6", f"resume={old}", callbacks=[numbers])
    assert contents(old) == before
    assert prolonged != old
    checkpoint, ours = final(prolonged)
    assert_same(ours, rows)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "loops", "global_step"):
        assert_same(checkpoint[key], whole[key], key)
    batches = 2 if "trainer.accumulate=2" in words else 1
    assert numbers.seen == list(range(3 * batches, 6 * batches))  # the order of the data goes on
    assert json.loads((prolonged / "results.json").read_text())["steps"] == 6
    assert checkpoint["configuration"]["prolongs"] == f"{old.name} after step 3"


def test_cut_off_it_goes_on_by_the_same_words_to_the_same_bits(run_tiny, tmp_path, capsys):
    words = [*SHORT, "method=byol", "penalty=srip", "penalty.warm_start=true", "trainer.max_steps=null"]
    old = run_tiny(*words, "trainer.max_epochs=1", f"runs={tmp_path / 'old'}")
    words += ["trainer.max_epochs=3", f"resume={old}"]
    whole = final(run_tiny(*words, f"runs={tmp_path / 'whole'}"))
    capsys.readouterr()
    for step in (2, 4):
        with pytest.raises(RuntimeError, match="the power went out"):
            run_tiny(*words, callbacks=[Crash(step)])
    folder = run_tiny(*words)
    assert list((tmp_path / "runs").iterdir()) == [folder]
    checkpoint, rows = final(folder)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert_same(rows, whole[1])
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "loops", "global_step"):
        assert_same(checkpoint[key], whole[0][key], key)
    said = capsys.readouterr().out
    assert said.count("Prolonging") == 2  # twice from step 2, then from step 4
    assert run_tiny(*words) == folder
    assert f"{folder} is finished already." in capsys.readouterr().out
    assert run_tiny(*words[:-1], f"resume={folder}") == folder  # its own folder serves too


def test_rate_and_momentum_follow_the_longer_schedule(run_tiny, capsys):
    words = [*SHORT, "method=byol", "optimizer.lr=0.256", "optimizer.warmup=0.25", "method.momentum=0.5"]
    old = run_tiny(*words, "trainer.max_steps=2")
    prolonged = run_tiny(*words, "trainer.max_steps=8", f"resume={old}")
    peak = 0.256 * 450 / 256
    # Half a cosine over the steps after the warm-up: 2 of 8, and of 2 none (round(0.5) is 0).
    rates = [peak * 0.5 * (1 + math.cos(math.pi * (step - 2) / 6)) for step in range(2, 8)]
    ending = [peak, peak / 2]
    assert [row["lr"] for row in read_metrics(prolonged / "metrics.csv")] == pytest.approx([*ending, *rates])
    assert f"schedule of 8 steps: the rate is {peak:.3g} now, and was {peak / 2:.3g} in" in capsys.readouterr().out


def test_weight_decay_follows_the_longer_schedule():
    settings = AdamWSettings(weight_decay=0.1, final_weight_decay=0.5, warmup=0.0, lr=1e-3, scaling="none")

    def optimizer_and_schedule(steps):
        optimizer = build_optimizer(settings, torch.nn.Linear(2, 2), 256)
        return optimizer, build_schedule(settings, optimizer, steps)

    optimizer, schedule = optimizer_and_schedule(2)
    for _ in range(2):
        optimizer.step()
        schedule.step()
    longer, theirs = optimizer_and_schedule(4)
    longer.load_state_dict(optimizer.state_dict())
    theirs.load_state_dict(schedule.state_dict())
    assert [group["weight_decay"] for group in longer.param_groups] == [pytest.approx(0.3), 0.0]
    assert longer.param_groups[0]["lr"] == pytest.approx(5e-4)
    assert theirs.get_last_lr() == [group["lr"] for group in longer.param_groups]
    longer.step()
    theirs.step()
    share = 0.5 * (1 + math.cos(math.pi * 3 / 4))
    assert longer.param_groups[0]["lr"] == pytest.approx(1e-3 * share)
    assert longer.param_groups[0]["weight_decay"] == pytest.approx(0.5 - 0.4 * share)


def test_a_prolonged_run_is_prolonged_and_run_again_from_its_file(run_tiny, tmp_path):
    words = ["method=simclr", "trainer.checkpoint_every=1"]
    first = run_tiny(*words)
    second = run_tiny(*words, "trainer.max_steps=3", f"resume={first}")
    file = f"config={second / 'config.yaml'}"
    third = pretrain(load_config([file, "trainer.max_steps=4", f"resume={second}"]))
    assert read_checkpoint(checkpoint_files(third / "checkpoints")[0])["configuration"]["prolongs"] == (
        f"{second.name} after step 3"
    )
    assert [row["step"] for row in read_metrics(third / "metrics.csv")] == [1, 2, 3, 4]
    assert pretrain(load_config([file, f"resume={first}"])) == second
    assert pretrain(load_config([file, "resume=auto"])) == second
    for words in (["seed=2"], ["seed=2", "trainer.max_steps=2"]):
        with pytest.raises(TrainerError, match=r"(?s)another configuration; it differs in\n  seed: 0 -> 2\n"):
            pretrain(load_config([file, f"resume={first}", *words]))
    assert pretrain(load_config([file, f"resume={first}", "trainer.max_steps=2"])) == first
    with pytest.raises(TrainerError, match=rf"prolong another run, {first.name} after step 2: .* prolongs=null\."):
        pretrain(load_config([file]))
    shutil.rmtree(second)
    with pytest.raises(TrainerError, match="prolong another run"):
        pretrain(load_config([file.replace(str(second), str(third)), "resume=auto", "seed=5"]))


def test_a_shorter_run_an_unfinished_one_and_other_changes_are_refused(run_tiny):
    old = run_tiny("method=simclr", "trainer.max_steps=3", "trainer.checkpoint_every=1")
    words = "method=simclr", "trainer.checkpoint_every=1", f"resume={old}"
    with pytest.raises(
        TrainerError, match=r"has 3 steps, and these words give 2: a run can be prolonged, not shortened"
    ):
        run_tiny(*words, "trainer.max_steps=2")
    with pytest.raises(
        TrainerError, match=r"(?s)it differs in\n  method.temperature: 0.2 -> 0.5\n  trainer.max_steps: 3"
    ):
        run_tiny(*words, "trainer.max_steps=4", "method.temperature=0.5")
    (old / "results.json").unlink()
    with pytest.raises(
        TrainerError, match=r"is not finished, .* First go on with it as it is: .*trainer.max_steps=3\."
    ):
        run_tiny(*words, "trainer.max_steps=4")
    assert len(list(old.parent.iterdir())) == 1


def test_a_run_of_parts_from_outside_is_prolonged(tmp_path, monkeypatch):
    monkeypatch.setattr("ortho_kernels.trainer.runs.pretrain.write_report", lambda path, runs: None)
    words = ["method=outside_parts:Predicting", "data=outside_parts:Noise", "backbone=outside_parts:Flat"]
    words += ["penalty=outside_parts:SumOfSquares", "penalty.gamma=0.01", "trainer.batch_size=16", *LEVEL]
    words += ["trainer.checkpoint_every=1", "trainer.log_every=1"]
    whole = pretrain(load_config([*words, "trainer.max_steps=5", f"runs={tmp_path / 'whole'}"]))
    old = pretrain(load_config([*words, "trainer.max_steps=2", f"runs={tmp_path / 'old'}"]))
    words = [f"config={old / 'config.yaml'}", "trainer.max_steps=5", f"resume={old}"]
    prolonged = pretrain(load_config([*words, f"runs={tmp_path / 'new'}"]))
    assert_same(final(prolonged)[0]["state_dict"], final(whole)[0]["state_dict"])


def train_three(ranks, words, folder):
    """A whole run, one of half its length, and that one prolonged; returns the folder that holds them."""

    def run(name, *more):
        return train(ranks, load_config([*words, *more, f"runs={folder / name}"]))

    run("whole", "trainer.max_steps=4")
    old = run("old", "trainer.max_steps=2")
    (old / "results.json").write_text("{}")  # as a run that was evaluated has
    ranks.broadcast(None)
    run("new", "trainer.max_steps=4", f"resume={old}")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_prolong_a_run(tmp_path, strategy):
    words = [*tiny_words(), "method=byol", *LEVEL, *LEVEL_TEACHER, f"trainer={strategy}", "trainer.accelerator=cpu"]
    words += ["trainer.checkpoint_every=1", "optimizer=adamw"]
    launch_processes(2, "gloo", 60.0, partial(train_three, words=words, folder=tmp_path))
    ours, theirs = (final(next((tmp_path / name).iterdir())) for name in ("new", "whole"))
    assert_same(ours[1], theirs[1])
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        assert_same(ours[0][key], theirs[0][key], key)


def test_code_that_makes_another_network_since_is_said(run_tiny, monkeypatch):
    from ortho_kernels.trainer.methods import SimCLR

    words = "method=simclr", "trainer.checkpoint_every=1"
    old = run_tiny(*words)
    (old / "results.json").unlink()
    build = SimCLR.__init__

    def with_another(self, encoder, settings):
        build(self, encoder, settings)
        self.another = torch.nn.Linear(2, 2)

    monkeypatch.setattr(SimCLR, "__init__", with_another)
    with pytest.raises(
        TrainerError, match=r"of another network; it differs in method\.another\.bias, method\.another\.weight\. Bring"
    ):
        run_tiny(*words, f"resume={old}")
