"""torchrun on two machines, which are two process groups on this one: what they train, and what becomes of it when one is
lost."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from bare_runs import train
from tiny import LONGER

from ortho_kernels.trainer.config import load_config
from ortho_kernels.trainer.distributed.processes import ALONE
from ortho_kernels.trainer.engine.checkpoints import checkpoint_files, read_checkpoint
from ortho_kernels.trainer.runs.lock import NAME

pytestmark = pytest.mark.slow  # each start of torchrun imports all of Lightning twice

WORDS = [*LONGER, "penalty.gamma=1e-3"]
TWO = ["trainer=ddp", "trainer.nodes=2", "trainer.devices=1"]


class Machines:
    """An agent of torchrun each, with its worker; the first listens for the others."""

    def __init__(self, folder, words, options=(), count=2):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        self.folder = folder
        self.logs = [folder / f"machine-{number}.log" for number in range(count)]
        torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={count}", "--nproc-per-node=1"]
        torchrun += ["--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}", *options]
        trainer = ["-m", "ortho_kernels.trainer", *WORDS, f"runs={folder / 'runs'}", *words]
        self.agents = []
        for number, log in enumerate(self.logs):
            host = ["--rdzv-conf", f"is_host={number == 0}"]
            with open(log, "w") as file:
                self.agents.append(
                    subprocess.Popen([*torchrun, *host, *trainer], stdout=file, stderr=file, start_new_session=True)
                )

    def worker(self, number):
        found = subprocess.run(["pgrep", "-P", str(self.agents[number].pid)], capture_output=True, text=True)
        return int(found.stdout.split()[0])

    def wait_for_checkpoint(self):
        deadline = time.monotonic() + 120
        while not list(self.folder.glob("runs/*/checkpoints/step-*.ckpt")):
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.01)

    def lose(self, number):
        worker = self.worker(number)
        os.kill(self.agents[number].pid, signal.SIGKILL)
        os.kill(worker, signal.SIGKILL)

    def end(self, seconds=400):
        """The exit codes."""
        try:
            return [agent.wait(seconds) for agent in self.agents]
        finally:
            for agent in self.agents:
                if agent.poll() is None:
                    os.killpg(agent.pid, signal.SIGKILL)

    def said(self, number=None):
        return "".join(log.read_text() for log in (self.logs if number is None else [self.logs[number]]))


def weights(runs):
    [folder] = runs.iterdir()
    return read_checkpoint(checkpoint_files(folder / "checkpoints")[0])["state_dict"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    machines = Machines(folder, [*TWO, "resume=auto"])
    assert machines.end() == [0, 0], machines.said()
    return weights(folder / "runs")


def assert_same_bits(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert [name for name, weight in ours.items() if not torch.equal(weight, theirs[name])] == []


def assert_same_to_rounding(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], atol=1e-7, rtol=1e-5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    train(ALONE, load_config([*WORDS, f"runs={folder / 'runs'}"]))
    return weights(folder / "runs")


def test_two_machines_train_as_one_process_does(undisturbed, alone):
    assert_same_to_rounding(undisturbed, alone)


def test_a_lost_machine_ends_the_others_and_the_same_words_go_on(tmp_path, undisturbed):
    machines = Machines(tmp_path, [*TWO, "resume=auto"])
    machines.wait_for_checkpoint()
    machines.lose(1)
    start = time.monotonic()
    assert machines.end()[0] != 0
    assert time.monotonic() - start < 60
    assert "of 2, on " in machines.said(0)
    assert "has lost the others" in machines.said(0)
    assert "start all of them again with resume=auto" in " ".join(machines.said(0).split())
    [run] = (tmp_path / "runs").iterdir()
    assert not (run / NAME).exists()
    assert not list(run.rglob("*.partial"))
    for path in checkpoint_files(run / "checkpoints"):
        read_checkpoint(path)
    again = Machines(tmp_path, [*TWO, "resume=auto"])
    assert again.end() == [0, 0], again.said()
    assert f"Resuming {run}" in again.said()
    assert_same_bits(weights(tmp_path / "runs"), undisturbed)


def test_a_machine_that_does_not_answer_is_lost_after_the_timeout(tmp_path):
    machines = Machines(tmp_path, [*TWO, "trainer.timeout=5", "trainer.max_steps=100000"])
    machines.wait_for_checkpoint()
    worker = machines.worker(1)
    os.kill(machines.agents[1].pid, signal.SIGSTOP)
    os.kill(worker, signal.SIGSTOP)
    start = time.monotonic()
    assert machines.agents[0].wait(60) != 0
    assert time.monotonic() - start < 40
    assert "has lost the others" in machines.said(0)
    os.kill(worker, signal.SIGKILL)
    os.kill(machines.agents[1].pid, signal.SIGKILL)
    machines.end()


def test_torchrun_starts_a_run_again_by_itself(tmp_path, undisturbed):
    machines = Machines(tmp_path, [*TWO, "resume=auto"], ["--max-restarts=2"])
    machines.wait_for_checkpoint()
    os.kill(machines.worker(1), signal.SIGKILL)
    assert machines.end() == [0, 0], machines.said()
    [run] = (tmp_path / "runs").iterdir()
    assert f"Resuming {run}" in machines.said()
    assert_same_bits(weights(tmp_path / "runs"), undisturbed)


def test_what_is_left_goes_on_to_rounding(tmp_path, alone):
    machines = Machines(tmp_path, [*TWO, "resume=auto"])
    machines.wait_for_checkpoint()
    machines.lose(1)
    machines.end()
    [run] = (tmp_path / "runs").iterdir()
    refused = Machines(tmp_path, [*TWO, "resume=auto"], count=1)
    assert refused.end() == [1]
    assert "torchrun starts 1 processes, but trainer.nodes=2 with trainer.devices=1" in refused.said()
    left = Machines(tmp_path, ["trainer=ddp", "trainer.nodes=1", "trainer.devices=1", f"resume={run}"], count=1)
    assert left.end() == [0], left.said()
    assert f"trainer.nodes: 2 -> 1: {run} goes on with other processes" in left.said()
    assert_same_to_rounding(weights(tmp_path / "runs"), alone)
