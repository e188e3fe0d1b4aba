"""Jobs of submitit: several tasks that are one run, and jobs that are submitted again and go on."""

import os
import signal
import subprocess
import threading
import time

import pytest
import slurm_in_small
import torch
from tiny import LONGER

from ortho_kernels.trainer import sweep
from ortho_kernels.trainer.config import load_config
from ortho_kernels.trainer.engine.checkpoints import checkpoint_files, read_checkpoint
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.runs import cluster_job
from ortho_kernels.trainer.runs.cluster_job import ClusterJob, Outcome
from ortho_kernels.trainer.runs.launchers import launch

pytest.importorskip("submitit", reason="submitit is not installed")

WORDS = [*LONGER, "sweep.launcher=submitit"]
TWO = ["trainer=ddp", "trainer.devices=2"]
SUBMITTED = {"local": {"SUBMITIT_LOCAL_JOB_ID": "4211"}, "slurm": {"SLURM_JOB_ID": "4211"}}
TASK = {
    "local": ("SUBMITIT_LOCAL_NTASKS", "SUBMITIT_LOCAL_GLOBALID", "SUBMITIT_LOCAL_LOCALID"),
    "slurm": ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"),
}


@pytest.fixture
def job(monkeypatch):
    """`job(attempt, cluster, rank)`: what a task of a job does; returns the outcome and what submitit's handler heard."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    heard = []

    def run(attempt, cluster="local", rank=0, config=None):
        names = TASK[cluster]
        for name, value in {
            "SUBMITIT_EXECUTOR": cluster,
            **SUBMITTED[cluster],
            **dict(zip(names, ("2", str(rank), str(rank)), strict=True)),
        }.items():
            monkeypatch.setenv(name, value)
        signal.signal(signal.SIGUSR2, lambda number, _: heard.append(number))
        return ClusterJob(attempt)(config or load_config(WORDS), None), heard

    run.heard = heard
    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_tasks_of_a_local_job_find_each_other(job):
    seen = {}

    def attempt(config, threads):
        seen.update({name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")})
        seen["port"] = os.environ["MASTER_PORT"]
        return Outcome(None, "done")

    assert job(attempt, rank=1) == (Outcome(None, "done"), [])
    assert seen == {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "port": "14211"}


@pytest.mark.parametrize(
    ("restarts", "given", "seen"), [("0", None, None), ("1", None, "auto"), ("2", "there", "there")]
)
def test_a_job_that_slurm_starts_again_goes_on(job, monkeypatch, restarts, given, seen):
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    config = load_config([*WORDS, f"resume={given or 'null'}"])
    outcome, _ = job(lambda config, threads: Outcome(None, str(config.resume)), "slurm", config=config)
    assert outcome.error == str(seen)


def warned(config, threads):
    """As a run that has no handler of its own at the moment."""
    signal.raise_signal(signal.SIGUSR2)
    raise AssertionError("the signal has not stopped it")


def test_a_warned_job_is_submitted_again_with_resume_auto(job):
    with pytest.raises(TrainerError, match="Stopped by SIGTERM"):
        job(warned)
    assert job.heard == [signal.SIGUSR2]
    config = load_config(WORDS)
    again = ClusterJob(sweep.attempt).checkpoint(config, 3)
    assert (again.args[0].resume, again.args[1]) == ("auto", 3)
    assert config.resume is None
    assert again.function.attempt is sweep.attempt


def test_other_tasks_end_in_peace(job):
    with pytest.raises(SystemExit) as ended:
        job(warned, rank=1)
    assert ended.value.code == 0
    assert job.heard == []


def terminated(config, threads):
    signal.raise_signal(signal.SIGTERM)


def test_a_job_that_slurm_ends_waits_for_its_end(job, monkeypatch):
    monkeypatch.setattr(cluster_job, "END_SECONDS", 0.0)
    with pytest.raises(TrainerError, match="Stopped by SIGTERM"):
        job(terminated, "slurm")
    assert job.heard == []


@pytest.mark.parametrize(("cluster", "rank", "waits"), [("slurm", 0, 1), ("slurm", 1, 0), ("local", 0, 0)])
def test_a_job_that_has_lost_a_machine_leaves_slurm_time_to_notice(job, monkeypatch, cluster, rank, waits):
    waited = []
    monkeypatch.setattr(ClusterJob, "_wait_for_slurm", lambda self: waited.append(self))
    lost = Outcome(None, "Process 0 of 2, on gpu01, has lost the others (...).")
    assert job(lambda config, threads: lost, cluster, rank) == (lost, [])
    assert len(waited) == waits


def test_a_job_that_slurm_preempts_is_warned_after_sigterm(job):
    def preempted(config, threads):
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR2)).start()
        terminated(config, threads)

    with pytest.raises(TrainerError, match="Stopped by SIGTERM"):
        job(preempted, "slurm")
    assert job.heard == [signal.SIGUSR2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["sweep.slurm={tasks_per_node: 2}"],
            "sweep.slurm starts 2 processes, and each would train this run by itself",
        ),
        (["sweep.slurm={tasks_per_node: 2}", "trainer=ddp"], "say how many a machine has, by trainer.devices"),
        (["sweep.slurm={tasks_per_node: 4}", *TWO], "sweep.slurm starts 4 processes, but trainer.nodes=1 with"),
    ],
)
def test_tasks_that_are_not_the_processes_of_the_run_are_refused_before_they_wait_in_a_queue(tmp_path, words, said):
    config = load_config([*WORDS, "sweep.cluster=local", *words, f"runs={tmp_path}"])
    with pytest.raises(TrainerError, match=said):
        launch(config.sweep, [config], sweep.attempt)


# Jobs of submitit's local executor, which are processes of this machine.


def local(folder, *words):
    slurm = "sweep.slurm={tasks_per_node: 2, timeout_min: 10}"
    return load_config([*WORDS, *TWO, "sweep.cluster=local", slurm, f"runs={folder}", *words])


def weights(runs):
    [checkpoints] = runs.glob("*/checkpoints")
    return read_checkpoint(checkpoint_files(checkpoints)[0])["state_dict"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    config = local(folder)
    [outcome] = launch(config.sweep, [config], sweep.attempt)
    assert (outcome.folder / "results.json").exists(), outcome
    return weights(folder)


def wait_for_checkpoint(runs):
    deadline = time.monotonic() + 120
    while not list(runs.glob("*/checkpoints/step-*.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.01)


def assert_same_bits(ours, theirs):
    assert [name for name, weight in ours.items() if not torch.equal(weight, theirs[name])] == []


def signal_tasks(folder, number, tasks):
    wait_for_checkpoint(folder)
    [submitted] = (folder / "submitit").glob("*_submitted.pkl")
    controller = submitted.name.partition("_")[0]
    found = subprocess.run(["pgrep", "-P", controller], capture_output=True, text=True).stdout.split()
    for task in tasks:
        os.kill(int(found[task]), number)


def disturbed(folder, number, tasks):
    config = local(folder)
    disturbance = threading.Thread(target=signal_tasks, args=(folder, number, tasks))
    disturbance.start()
    [outcome] = launch(config.sweep, [config], sweep.attempt)
    disturbance.join()
    return outcome


def said(folder):
    return "".join(log.read_text() for log in sorted((folder / "submitit").glob("*_log.*")))


@pytest.mark.slow
def test_a_preempted_job_saves_and_goes_on_by_itself(tmp_path, undisturbed):
    outcome = disturbed(tmp_path, signal.SIGUSR2, [0, 1])
    assert outcome.folder is not None, outcome.error + said(tmp_path)
    assert "which is saved" in said(tmp_path)
    assert f"Resuming {outcome.folder}" in said(tmp_path)
    assert_same_bits(weights(tmp_path), undisturbed)


@pytest.mark.slow
def test_a_job_that_loses_a_task_fails_with_the_reason_and_the_same_words_go_on(tmp_path, undisturbed):
    outcome = disturbed(tmp_path, signal.SIGKILL, [1])
    assert "Process 0 of 2" in outcome.error, outcome
    assert "has lost the others" in outcome.error
    config = local(tmp_path, "resume=auto")
    [again] = launch(config.sweep, [config], sweep.attempt)
    assert f"Resuming {again.folder}" in said(tmp_path)
    assert_same_bits(weights(tmp_path), undisturbed)


# Jobs of submitit's executor for SLURM, whose commands are made up here: each task is a machine of its own.


@pytest.mark.slow
@pytest.mark.parametrize("lost", [True, False])
def test_a_job_of_slurm_goes_on_after_a_machine_is_lost_or_taken_away(tmp_path, monkeypatch, undisturbed, lost):
    commands = tmp_path / "slurm"
    commands.mkdir()
    slurm_in_small.install(commands, str(2 * os.getpid() + lost))
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    runs = tmp_path / "runs"
    words = ["trainer=ddp", "trainer.nodes=2", "trainer.devices=1", "sweep.cluster=slurm"]
    config = load_config([*WORDS, *words, "sweep.slurm={nodes: 2, tasks_per_node: 1, timeout_min: 60}", f"runs={runs}"])

    def disturb():
        wait_for_checkpoint(runs)
        if lost:
            slurm_in_small.lose_machine(commands, 1)
        else:
            for pid in slurm_in_small.pids(commands):
                os.kill(pid, signal.SIGUSR2)

    disturbance = threading.Thread(target=disturb)
    disturbance.start()
    [outcome] = launch(config.sweep, [config], sweep.attempt)
    disturbance.join()
    assert outcome.folder is not None, outcome.error + said(runs)
    assert f"Resuming {outcome.folder}" in said(runs)
    assert ("which is saved" in said(runs)) != lost
    for name, weight in weights(runs).items():  # two machines of one process are rounded unlike one machine of two
        torch.testing.assert_close(weight, undisturbed[name], atol=1e-7, rtol=1e-5)
