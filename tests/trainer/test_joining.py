"""Processes that torchrun or SLURM has started: how they find each other, and what does not fit is said."""

import json
import os
import socket
import time

import pytest
from forking import forking_context
from torch.multiprocessing.spawn import start_processes

from ortho_kernels.trainer import command, compare
from ortho_kernels.trainer.distributed.joining import first_host, join_group, place_of_this_process, port_of_job
from ortho_kernels.trainer.distributed.processes import Ranks
from ortho_kernels.trainer.engine.settings import TrainerSettings, require_processes
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.runs import folders, lock
from ortho_kernels.trainer.runs.folders import Run, open_run

STARTERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def _started_alone(monkeypatch):
    for name in [*STARTERS, *[name for name in os.environ if name.startswith("SLURM_")]]:
        monkeypatch.delenv(name, raising=False)


def srun(rank, count, job="4211", nodes="localhost"):
    """The variables that srun gives a task of two machines."""
    return {
        "SLURM_JOB_ID": job,
        "SLURM_JOB_NODELIST": nodes,
        "SLURM_NTASKS": str(count),
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": str(count),
        "SLURM_STEP_NODELIST": nodes,
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": str(rank),
    }


def place_within(monkeypatch, **variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return place_of_this_process()


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu7", "gpu7"),
        ("gpu[01-04,07]", "gpu01"),
        ("gpu[07]", "gpu07"),
        ("gpu[3,5-9],login", "gpu3"),
        ("login,gpu[01-04]", "login"),
        ("rack[2-3]node[08-16]", "rack2node08"),
        ("a100-[1-2]-ib.cluster,b", "a100-1-ib.cluster"),
    ],
)
def test_the_first_host_of_a_list_of_nodes(nodes, first):
    assert first_host(nodes) == first


def test_each_job_and_step_has_a_port_that_programs_may_take():
    assert port_of_job("4211") == "14211"
    ports = {
        int(port_of_job(job, step)) for job in ("0", "19999", "20000", "87654321") for step in ("0", "1", "4294967290")
    }
    assert min(ports) >= 10000
    assert max(ports) < 30000
    assert port_of_job("7", "0") != port_of_job("7", "1")


def test_a_task_of_srun_finds_its_place(monkeypatch):
    place = place_within(monkeypatch, **srun(3, 4, nodes="gpu[01-02]"), SLURM_NODELIST="login")
    assert (place.starter, place.rank, place.count, place.local_rank) == ("srun", 3, 4, 0)
    assert (place.address, place.port) == ("gpu01", "14211")


def test_what_is_given_goes_before_what_is_derived(monkeypatch):
    place = place_within(monkeypatch, **srun(1, 2), MASTER_ADDR="10.0.0.7", MASTER_PORT="29500")
    assert (place.address, place.port) == ("10.0.0.7", "29500")


def test_torchrun_within_a_job_goes_before_slurm(monkeypatch):
    place = place_within(monkeypatch, **srun(1, 2), RANK="9", WORLD_SIZE="16", LOCAL_RANK="1", MASTER_PORT="29500")
    assert (place.starter, place.rank, place.count, place.local_rank) == ("torchrun", 9, 16, 1)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},  # a batch script
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"},  # the shell of salloc
        srun(0, 1),
    ],
)
def test_a_process_without_others_has_no_place_among_them(monkeypatch, variables):
    assert place_within(monkeypatch, **variables) is None


def test_an_address_that_nobody_gave_is_asked_for(monkeypatch):
    place = place_within(monkeypatch, RANK="0", WORLD_SIZE="2")
    with pytest.raises(TrainerError, match="MASTER_ADDR and MASTER_PORT are not set"):
        join_group(place, "gloo", 1.0).__enter__()


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def sum_of_ranks(rank, folder, job):
    os.environ |= srun(rank, 2, job)
    with join_group(place_of_this_process(), "gloo", 60.0) as ranks:
        result = {"gathered": ranks.gather(f"task {rank}"), "local": os.environ["LOCAL_RANK"]}
    (folder / f"{rank}.json").write_text(json.dumps(result))
    os._exit(0)


def on_tasks(function, *arguments):
    """The function on two processes, which find each other by themselves."""
    start_processes(function, arguments, nprocs=2, start_method=forking_context().get_start_method())


def test_two_tasks_of_srun_find_each_other(tmp_path):
    on_tasks(sum_of_ranks, tmp_path, str(os.getpid()))
    for rank in range(2):
        result = json.loads((tmp_path / f"{rank}.json").read_text())
        assert result == {"gathered": ["task 0", "task 1"], "local": "0"}


def lose_one(rank, folder, port):
    os.environ |= {**srun(rank, 2), "MASTER_PORT": str(port)}
    try:
        with join_group(place_of_this_process(), "gloo", 60.0) as ranks:
            ranks.gather(None)
            if rank == 1:
                os._exit(0)
            ranks.gather(None)
    except TrainerError as error:
        (folder / "said").write_text(str(error))
    os._exit(0)


def test_a_process_that_is_gone_is_named_as_such(tmp_path):
    on_tasks(lose_one, tmp_path, free_port())
    said = (tmp_path / "said").read_text()
    assert said.startswith(f"Process 0 of 2, on {socket.gethostname()}, has lost the others (")
    assert "\n" not in said
    assert said.endswith("start all of them again with resume=auto.")


def raise_own_error(rank, folder, port):
    os.environ |= {**srun(rank, 2), "MASTER_PORT": str(port)}
    try:
        with join_group(place_of_this_process(), "gloo", 60.0):
            raise RuntimeError("a shape does not fit")
    except RuntimeError as error:
        (folder / f"{rank}").write_text(str(error))
    os._exit(0)


def test_an_error_of_ones_own_stays_what_it_is(tmp_path):
    on_tasks(raise_own_error, tmp_path, free_port())
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["a shape does not fit"] * 2


@pytest.mark.parametrize(
    ("words", "variables", "said"),
    [
        ({}, srun(0, 2), "srun starts 2 processes, and each would train this run by itself: add trainer=ddp"),
        (
            {"strategy": "ddp", "devices": 2},
            srun(0, 4),
            "srun starts 4 processes, but trainer.nodes=1 with trainer.devices=2 on each are 2.*resume=FOLDER",
        ),
        (
            {"strategy": "ddp", "nodes": 2, "devices": 1},
            {"RANK": "0", "WORLD_SIZE": "1"},
            "torchrun starts 1 processes",
        ),
        (
            {"strategy": "ddp", "nodes": 2, "devices": 1},
            {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"},
            "more than trainer.devices=1: start as many on each machine",
        ),
    ],
)
def test_processes_that_the_options_do_not_ask_for_are_refused(monkeypatch, words, variables, said):
    place = place_within(monkeypatch, **variables)
    with pytest.raises(TrainerError, match=said):
        require_processes(TrainerSettings(accelerator="cpu", **words), place)


def test_a_process_that_sees_too_few_gpus_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    place = place_within(monkeypatch, RANK="1", WORLD_SIZE="2", LOCAL_RANK="1")
    with pytest.raises(TrainerError, match=r"Process 1 of this machine sees 1 GPUs.*no --gpus-per-task"):
        require_processes(TrainerSettings(accelerator="gpu", strategy="ddp", devices=2), place)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"RANK": "0", "WORLD_SIZE": "1"}, {}),
        (srun(1, 2), {"strategy": "ddp", "nodes": 2, "devices": 1}),
        ({"RANK": "0", "WORLD_SIZE": "2"}, {"strategy": "fsdp2", "nodes": 1, "devices": 2}),
    ],
)
def test_processes_that_the_options_ask_for_are_taken(monkeypatch, variables, words):
    require_processes(TrainerSettings(accelerator="cpu", **words), place_within(monkeypatch, **variables))


def test_sweeps_and_comparisons_are_started_once(monkeypatch):
    place_within(monkeypatch, **srun(0, 2))
    with pytest.raises(TrainerError, match=r"A sweep \(-m\) is started once, and srun starts 2 of it"):
        command.main(["-m", "seed=0,1", "data=digits"])
    with pytest.raises(TrainerError, match="A comparison is started once"):
        compare.main(["data=digits", "penalty=so"])


# The run's folder, on machines that share it or do not.


class Others(Ranks):
    """Rank 0 of two, whose other machine answers as given; what rank 0 has sent it."""

    def __init__(self, gathered=(None, None)):
        super().__init__(0, 2)
        object.__setattr__(self, "gathered", list(gathered))
        object.__setattr__(self, "sent", [])

    def broadcast(self, value):
        self.sent.append(value)
        return value

    def gather(self, value):
        return [value, *self.gathered[1:]]


def test_a_machine_that_cannot_read_the_checkpoint_is_named(run_tiny, tiny):
    folder = run_tiny("trainer.checkpoint_every=1")
    with (
        pytest.raises(TrainerError, match=r"step-000000002.ckpt cannot be read on gpu07. Every process reads it"),
        open_run(tiny("trainer.checkpoint_every=1", "resume=auto"), Others([None, "gpu07"])),
    ):
        pass
    assert not (folder / lock.NAME).exists()


def test_other_machines_are_sent_a_path_that_does_not_depend_on_where_they_stand(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config, ranks = tiny(), Others()
    config.runs = "here"
    with open_run(config, ranks) as run:
        assert not run.folder.is_absolute()
    assert [sent.folder for sent in ranks.sent] == [tmp_path / run.folder]


def test_a_new_run_needs_no_shared_folder():
    folders._require_checkpoint(Run("there"), Others())


def test_another_number_of_processes_goes_on_where_it_is_named(run_tiny, tiny, capsys):
    folder = run_tiny()
    with open_run(tiny("trainer.nodes=2", "trainer.devices=4", f"resume={folder}"), Ranks()) as run:
        assert run.step == 2
    said = capsys.readouterr().out
    assert f"trainer.nodes: 1 -> 2: {folder} goes on with other processes, the same to rounding" in said


def leave_lock_of_another_machine(folder, age):
    holder = lock._this_process()._replace(machine="another", host="gpu07")
    (folder / lock.NAME).write_text(json.dumps(holder._asdict()))
    os.utime(folder / lock.NAME, (time.time() - age,) * 2)


def test_the_lock_of_a_lost_machine_is_waited_for(run_tiny, tiny, monkeypatch, capsys):
    folder = run_tiny()
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(lock, "STALE_SECONDS", 101.0)
    leave_lock_of_another_machine(folder, age=100)
    ranks = Others()
    with open_run(tiny("resume=auto"), ranks) as run:
        assert run.folder == folder
    assert capsys.readouterr().out.count("is held from gpu07") == 1
    assert ranks.sent[0] is None
    assert ranks.sent[-1].folder == folder


def test_a_lock_that_is_renewed_is_held(run_tiny, tiny, monkeypatch):
    folder = run_tiny()
    leave_lock_of_another_machine(folder, age=100)
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.01)
    with (
        pytest.raises(TrainerError, match="on gpu07 since"),
        open_run(tiny("resume=auto"), Renewing(folder / lock.NAME)),
    ):
        pass


class Renewing(Others):
    def __init__(self, path):
        super().__init__()
        object.__setattr__(self, "path", path)

    def broadcast(self, value):
        if value is None:
            os.utime(self.path)
        return super().broadcast(value)


def test_nobody_waits_without_a_lock(tmp_path):
    lock.wait_for_lapse(tmp_path, waiting=pytest.fail)
    with lock.acquire_lock(tmp_path):  # of this machine: it can be looked up
        lock.wait_for_lapse(tmp_path, waiting=pytest.fail)
