"""Runs a function on several processes of a gloo group, each seeded differently, as MAE's and DeiT's scripts do."""

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from forking import forking_context
from torch.multiprocessing.spawn import start_processes


def on_ranks(count, folder, function, *arguments):
    """What `function(rank, *arguments)` returned on each of `count` processes."""
    arguments = (count, str(folder), function, arguments)
    start_processes(_run, arguments, nprocs=count, start_method=forking_context().get_start_method())
    return [torch.load(f"{folder}/{count}-{rank}.pt") for rank in range(count)]


def _run(rank, count, folder, function, arguments):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", f"file://{folder}/store-{count}", timedelta(seconds=60), world_size=count, rank=rank
    )
    torch.manual_seed(100 + rank)
    torch.save(function(rank, *arguments), f"{folder}/{count}-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
    # DTensors keep the group's threads alive, and one that frees a tensor while Python shuts down aborts the process.
    os._exit(0)
