"""Processes that torchrun or SLURM has started: each finds its place in the environment and joins the others."""

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch.distributed as dist

from ..errors import TrainerError
from .processes import Ranks, open_group

LOST = "has lost the others"


@dataclass(frozen=True)
class Place:
    """Where this process stands among those that somebody else has started."""

    starter: str
    rank: int
    count: int
    local_rank: int  # among those of its machine
    address: str | None  # of rank 0
    port: str | None


def place_of_this_process() -> Place | None:
    """None for a process that was started alone. torchrun is asked first: a SLURM job may start it."""
    given = os.environ.get
    address, port = given("MASTER_ADDR"), given("MASTER_PORT")
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        return Place("torchrun", rank, count, int(given("LOCAL_RANK", "0")), address, port)
    count = int(given("SLURM_STEP_NUM_TASKS", "1"))  # srun's; a batch script has SLURM_NTASKS too, and is one process
    if count == 1:
        return None
    address = address or first_host(given("SLURM_STEP_NODELIST", given("SLURM_JOB_NODELIST", ""))) or None
    port = port or port_of_job(given("SLURM_JOB_ID", "0"), given("SLURM_STEP_ID", "0"))
    return Place("srun", int(os.environ["SLURM_PROCID"]), count, int(os.environ["SLURM_LOCALID"]), address, port)


def first_host(nodes: str) -> str:
    """Of a list as SLURM writes it: `gpu[01-04,07],login` begins with gpu01."""
    group = re.match(r"(?:\[[^\]]*\]|[^,\[])*", nodes)
    assert group is not None
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", group[0])


def port_of_job(job: str, step: str = "0") -> str:
    """The same on all machines of a job, and below the ports that systems give out by themselves."""
    return str(10000 + (int(job) + int(step)) % 20000)


def require_alone(what: str) -> None:
    """Raises TrainerError where this process is one of several: each would do all of `what`."""
    place = place_of_this_process()
    if place is not None and place.count > 1:
        raise TrainerError(f"{what} is started once, and {place.starter} starts {place.count} of it.")


@contextmanager
def join_group(place: Place, backend: str, timeout: float) -> Iterator[Ranks]:
    """The group of all these processes.

    Raises:
        TrainerError: another process has ended or does not answer, now or within the block.
    """
    if place.address is None or place.port is None:
        raise TrainerError("MASTER_ADDR and MASTER_PORT are not set: they say where the process of RANK=0 listens.")
    os.environ |= {"LOCAL_RANK": str(place.local_rank), "MASTER_ADDR": place.address, "MASTER_PORT": place.port}
    try:
        with open_group(backend, timeout, "env://", place.rank, place.count) as ranks:
            yield ranks
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        reason = str(error).splitlines()[0]
        raise TrainerError(
            f"Process {place.rank} of {place.count}, on {socket.gethostname()}, {LOST} ({reason}). One of "
            "them has failed, and its own output says why, or its machine is gone. The last checkpoint is kept: start all "
            "of them again with resume=auto."
        ) from None
