"""A call of a penalty on several processes of a gloo group, counted on each of them, and compared with one process's."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes

from ortho_kernels import OrthogonalityPenalty

from ..measure import relative_errors
from ..model_shapes import Shapes
from .counted import SHARED, count, sharded_dims, values_bytes
from .ran import Ran

ERROR = 1e-5  # of the value and of each gradient in norm, relative to one process's
NUMBERS = 64  # bytes a matrix: values, factors and the like, which no count mentions


class Case(NamedTuple):
    """Weights, how the processes hold them (`counted.LAYOUTS`), and the penalty."""

    name: str
    shapes: Shapes
    layout: str
    kind: str


class Did(NamedTuple):
    """What one rank did in `accumulate_gradients`.

    Attributes:
        products, exchanged, reduced, peak: as in `Ran`.
        reduced_in_loss: of `penalty()` and its backward.
    """

    products: float
    exchanged: int
    reduced: int
    peak: int
    reduced_in_loss: int


def did(rank: int, case: Case) -> Did:
    penalty = _penalty(case)
    penalty.accumulate_gradients()  # makes the partition and the gradients
    with Ran(penalty.options, rank) as ran:
        penalty.accumulate_gradients()
    with Ran(penalty.options, rank) as in_loss:
        penalty().backward()
    return Did(ran.products, ran.exchanged, ran.reduced, ran.peak, in_loss.reduced)


def error(rank: int, case: Case) -> float:
    """Of the value and the gradients, relative to those that this process computes alone: the largest."""
    alone = OrthogonalityPenalty([nn.Parameter(weight) for weight in _weights(case.shapes)], case.kind)
    return max(relative_errors(_computed(_penalty(case)), _computed(alone)))


def check(found: Sequence[Did], case: Case) -> None:
    """Raises `RuntimeError` where ranks did something else than was counted."""
    ranks = len(found)
    counts = count(case.shapes, case.layout, case.kind, ranks)
    exchanged = sum(each.exchanged for each in found)
    received = exchanged + 2 * (ranks - 1) * found[0].reduced
    in_loss = exchanged + 2 * (ranks - 1) * found[0].reduced_in_loss
    _expect(case, "bytes", received, counts.received)
    _expect(case, "bytes in the loss", in_loss, _in_loss(case, ranks, counts.received))
    for rank, (each, products, memory) in enumerate(zip(found, counts.products, counts.memory, strict=True)):
        _expect(case, f"multiply-adds of rank {rank}", round(each.products), round(products))
        most = memory + NUMBERS * len(case.shapes)
        if each.peak > most:
            raise RuntimeError(f"{case.name}: rank {rank} held {each.peak} bytes, counted are {most} at most")


def run(cases: Sequence[Case], processes: int, function: Callable[[int, Case], Any]) -> Iterator[list[Any]]:
    """What `function(rank, case)` returned on each process, case by case."""
    with tempfile.TemporaryDirectory() as folder:
        start_processes(_run, (processes, folder, function, cases), nprocs=processes, start_method="spawn")
        found = [torch.load(f"{folder}/{rank}.pt", weights_only=False) for rank in range(processes)]
    yield from (list(each) for each in zip(*found, strict=True))


def _in_loss(case: Case, ranks: int, received: int) -> int:
    """Replicas reduce the values alone: DDP's own reduction adds the gradients up."""
    return values_bytes(len(case.shapes), ranks) if case.layout == SHARED else received


def _expect(case: Case, what: str, found: int, counted: int) -> None:
    if found != counted:
        raise RuntimeError(f"{case.name}: {found} {what}, counted are {counted}")


def _penalty(case: Case) -> OrthogonalityPenalty:
    weights = _weights(case.shapes)
    if case.layout == SHARED:
        return OrthogonalityPenalty([nn.Parameter(weight) for weight in weights], case.kind, share=dist.group.WORLD)
    return OrthogonalityPenalty(_sharded(weights, sharded_dims(case.shapes, case.layout)), case.kind)


def _weights(shapes: Shapes) -> list[Tensor]:
    """The same on every process."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) / shape[0] ** 0.5 for shape in shapes]


def _sharded(weights: Sequence[Tensor], dims: Sequence[int]) -> list[nn.Parameter]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    return [
        nn.Parameter(distribute_tensor(weight, mesh, [Shard(dim)], src_data_rank=None))
        for weight, dim in zip(weights, dims, strict=True)
    ]


def _computed(penalty: OrthogonalityPenalty) -> tuple[Tensor, list[Tensor]]:
    """The value and the gradients, in full on every process."""
    value = penalty.accumulate_gradients()
    gradients: list[Any] = [parameter.grad for parameter in penalty.encoder.parameters()]
    return value, [gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient for gradient in gradients]


def _run(rank: int, processes: int, folder: str, function: Callable[[int, Case], Any], cases: Sequence[Case]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", timedelta(minutes=10), world_size=processes, rank=rank)
    torch.save([function(rank, case) for case in cases], f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # DTensors keep the group's threads alive, and Python would abort while it shuts down
