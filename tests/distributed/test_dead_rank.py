"""A rank that dies, or stalls, leaves the others with an error within the group's timeout."""

import os
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from forking import forking_context
from torch import nn

from ortho_kernels import OrthogonalityPenalty

TIMEOUT = 2.0


def penalized(rank, count, folder, kind, way, moment):
    """The last rank dies or stalls; each other one writes what it was told, and after how long."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", timedelta(seconds=TIMEOUT), world_size=count, rank=rank)
    model = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 7))
    fully_shard(model, mesh=init_device_mesh("cpu", (count,)))
    penalty = OrthogonalityPenalty(model, kind, gamma=1.0)
    call = penalty.accumulate_gradients if way == "added" else lambda: penalty().backward()
    for _ in range(2 if moment == "between" else 0):
        call()
    if rank == count - 1:
        time.sleep(3 * TIMEOUT if moment == "stalls" else 0)
        os._exit(1)
    began = time.monotonic()
    try:
        call()
        words = ""
    except RuntimeError as error:
        words = str(error)
    torch.save((words, time.monotonic() - began), f"{folder}/{rank}.pt")
    os._exit(0)


@pytest.mark.parametrize(
    ("kind", "way", "moment"),
    [
        ("so", "added", "between"),
        ("srip", "loss", "between"),
        ("srip", "added", "before"),
        ("so", "loss", "stalls"),
    ],
)
def test_a_rank_that_dies(kind, way, moment, tmp_path):
    context, count = forking_context(), 3
    processes = [
        context.Process(target=penalized, args=(rank, count, str(tmp_path), kind, way, moment)) for rank in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        if process.exitcode is None:
            process.kill()
            pytest.fail("a rank hangs")
    for rank in range(count - 1):
        words, seconds = torch.load(tmp_path / f"{rank}.pt")
        assert words, "a rank computed the penalty without the others"
        assert seconds < 3 * TIMEOUT, f"{seconds:.1f} s"
