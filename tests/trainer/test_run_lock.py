"""One process at a time works on a run; one that is gone stops nobody."""

import json
import multiprocessing
import os
import subprocess
import sys
import time

import pytest
from lightning.pytorch import Callback

from ortho_kernels.trainer.distributed.processes import ALONE
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.runs import lock
from ortho_kernels.trainer.runs.folders import open_run
from ortho_kernels.trainer.runs.lock import NAME, acquire_lock


@pytest.fixture
def gone():
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def leave_lock(folder, age=0.0, **changes):
    """As a process leaves it that is killed."""
    holder = lock._this_process()._replace(**changes)
    (folder / NAME).write_text(json.dumps(holder._asdict()))
    os.utime(folder / NAME, (time.time() - age,) * 2)


def test_the_second_process_is_told_who_holds_the_run_and_the_lock_goes_with_its_holder(tmp_path):
    with acquire_lock(tmp_path):
        with pytest.raises(TrainerError, match=rf"held by process {os.getpid()} on \S+ since \d{{4}}-.*resume=auto"):
            acquire_lock(tmp_path).__enter__()
        assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError), acquire_lock(tmp_path):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def taken(folder):
    try:
        with acquire_lock(folder):
            pass
    except TrainerError:
        return False
    assert list(folder.iterdir()) == []
    return True


def test_a_holder_that_was_killed_is_followed_at_once(tmp_path, gone):
    leave_lock(tmp_path, pid=gone)
    assert taken(tmp_path)


def test_a_holder_whose_parent_has_not_noticed_its_end_is_followed_at_once(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    leave_lock(tmp_path, pid=process.pid, born=lock._born(process.pid))
    assert taken(tmp_path)
    process.wait()


def test_another_process_of_the_same_number_holds_nothing(tmp_path):
    leave_lock(tmp_path, born="1")
    assert taken(tmp_path)


@pytest.mark.parametrize(
    ("changes", "age", "free"),
    [
        ({"machine": "another host"}, 100, False),
        ({"machine": "another host"}, 400, True),
        ({}, 400, False),  # alive, though it was suspended for a while
        ({"born": None}, 100, False),  # no /proc says whether it is still the same
        ({"born": None}, 400, True),
    ],
)
def test_who_cannot_be_looked_up_is_gone_after_five_minutes(tmp_path, changes, age, free):
    leave_lock(tmp_path, age, **changes)
    assert taken(tmp_path) == free


@pytest.mark.parametrize(("age", "free"), [(10, False), (400, True)])
def test_a_lock_that_was_never_written_is_judged_by_its_age(tmp_path, age, free):
    (tmp_path / NAME).write_text("")
    os.utime(tmp_path / NAME, (time.time() - age,) * 2)
    assert taken(tmp_path) == free


def test_one_that_was_killed_while_it_took_a_stale_lock_is_followed(tmp_path, gone):
    leave_lock(tmp_path, pid=gone, token="first")
    (tmp_path / NAME).rename(tmp_path / f"{NAME}-second")
    leave_lock(tmp_path, pid=gone, token="second")
    assert taken(tmp_path)


def test_a_lock_is_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "RENEWAL_SECONDS", 0.01)
    with acquire_lock(tmp_path):
        os.utime(tmp_path / NAME, (0, 0))
        deadline = time.monotonic() + 30
        while (tmp_path / NAME).stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.time() - (tmp_path / NAME).stat().st_mtime < 60


def race(folder, rounds, barrier, wins):
    for number in range(rounds):
        barrier.wait()
        try:
            with acquire_lock(folder / str(number)):
                with wins.get_lock():
                    wins[number] += 1
                barrier.wait()  # until all have tried
        except TrainerError:
            barrier.wait()


@pytest.mark.parametrize("stale", [False, True])
def test_of_processes_that_start_together_one_wins(tmp_path, gone, stale):
    rounds, processes = 30, 6
    for number in range(rounds):
        (tmp_path / str(number)).mkdir()
        if stale:
            leave_lock(tmp_path / str(number), pid=gone)
    context = multiprocessing.get_context("fork")
    barrier, wins = context.Barrier(processes), context.Array("i", rounds)
    racers = [context.Process(target=race, args=(tmp_path, rounds, barrier, wins)) for _ in range(processes)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(120)
    assert [racer.exitcode for racer in racers] == [0] * processes
    assert list(wins) == [1] * rounds
    assert [path.name for number in range(rounds) for path in (tmp_path / str(number)).iterdir()] == []


def test_a_run_is_held_while_it_trains_and_while_it_is_evaluated(run_tiny, tiny, monkeypatch):
    from ortho_kernels.trainer.runs import pretrain

    refused = []

    def try_to_resume():
        with (
            pytest.raises(TrainerError, match=rf"held by process {os.getpid()}"),
            open_run(tiny("trainer.checkpoint_every=1", "resume=auto"), ALONE),
        ):
            pass
        refused.append(True)

    class Second(Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            if trainer.global_step == 1:
                try_to_resume()

    evaluate = pretrain.evaluate
    monkeypatch.setattr(pretrain, "evaluate", lambda *arguments: (try_to_resume(), evaluate(*arguments))[1])
    folder = run_tiny("trainer.checkpoint_every=1", callbacks=[Second()])
    assert refused == [True, True]
    assert not (folder / NAME).exists()
    assert run_tiny("trainer.checkpoint_every=1", "resume=auto") == folder


class Fail(Callback):
    def on_train_batch_start(self, trainer, module, batch, index):
        raise RuntimeError("the power went out")


def test_a_run_that_fails_lets_go(run_tiny, tmp_path):
    with pytest.raises(RuntimeError):
        run_tiny(callbacks=[Fail()])
    assert list((tmp_path / "runs").glob(f"*/{NAME}")) == []


def test_what_is_no_lock_is_named(tmp_path):
    (tmp_path / NAME).mkdir()
    with pytest.raises(TrainerError, match=rf"{tmp_path / NAME} is a folder, where the lock.*Remove it"):
        acquire_lock(tmp_path).__enter__()


@pytest.mark.parametrize("content", ["", "garbage", "[]", '{"host": 1}'])
def test_a_lock_that_names_nobody_says_how_to_go_on(tmp_path, content):
    (tmp_path / NAME).write_text(content)
    with pytest.raises(
        TrainerError, match=r"held by an unknown process since .*lapses five minutes after .*resume=auto"
    ):
        acquire_lock(tmp_path).__enter__()


def test_a_lock_with_values_of_other_types_names_nobody(tmp_path):
    leave_lock(tmp_path, pid="many")
    with pytest.raises(TrainerError, match="held by an unknown process"):
        acquire_lock(tmp_path).__enter__()


def test_the_lock_of_another_machine_says_when_it_lapses(tmp_path):
    leave_lock(tmp_path, host="other", machine="other")
    with pytest.raises(TrainerError, match=r"process \d+ on other since .*lapses five minutes after .*resume=auto"):
        acquire_lock(tmp_path).__enter__()


def test_auto_does_not_start_beside_a_run_that_has_no_checkpoint_yet(run_tiny, tiny, gone):
    refused = []

    class Second(Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            with pytest.raises(TrainerError, match="held by process"), open_run(tiny("resume=auto"), ALONE):
                pass
            refused.append(True)

    run_tiny(callbacks=[Second()])
    assert refused == [True, True]


def test_auto_starts_anew_after_one_that_was_killed_before_its_first_checkpoint(tiny, gone):
    with open_run(tiny("resume=auto"), ALONE) as first:
        pass
    leave_lock(first.folder, pid=gone)
    with open_run(tiny("resume=auto"), ALONE) as second:
        assert second.folder != first.folder
