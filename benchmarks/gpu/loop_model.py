"""A loop over layers as the model sees it: every operator that it hands to the GPU, with its bytes and its operations.

The rivals of `rivals.py` run on meta tensors, so that nothing is computed and any model fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmarks.measure import is_launch
from benchmarks.rivals import rival

from .cards import Card

# Assumptions of the model, of the order that is usually seen: what torch and Python spend on an operator with autograd, and
# the pause between two kernels of one stream, which is also what a kernel of a CUDA graph costs beside its work.
HOST_SECONDS, GAP_SECONDS = 6e-6, 1e-6


@dataclass(frozen=True)
class Operator:
    """One launch: bytes of all tensors that it reads and writes, and operations (of products; two a multiply-add)."""

    name: str
    bytes: int
    flops: int

    def seconds(self, card: Card, unit: str) -> float:
        """On the card, by the roofline: as long as its memory or its arithmetic takes."""
        return max(self.bytes / card.bandwidth, self.flops / card.peak[unit])


class _Record(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operators: list[Operator] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if is_launch(func):
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
            unique = {id(tensor): tensor for tensor in tensors}.values()
            count = flop_registry.get(func.overloadpacket)
            flops = count(*args, **(kwargs or {}), out_val=result) if count else 0
            size = sum(tensor.numel() * tensor.element_size() for tensor in unique)
            self.operators.append(Operator(func.overloadpacket.__name__, size, flops))
        return result


def operators(name: str, penalty: str, shapes: Sequence[tuple[int, ...]], dtype: torch.dtype) -> list[Operator]:
    """What the rival launches for one forward and backward over weights of these shapes."""
    weights = [torch.empty(shape, dtype=dtype, device="meta", requires_grad=True) for shape in shapes]
    with _Record() as record:
        torch.autograd.grad(rival(name, penalty)(weights), weights)
    return record.operators


@dataclass(frozen=True)
class LoopModel:
    """The modeled loop: launches, bytes, seconds as torch runs it, and as a CUDA graph of it would run."""

    launches: int
    bytes: int
    flops: int
    seconds: float
    graph_seconds: float


def predict(operators: Sequence[Operator], card: Card, unit: str) -> LoopModel:
    """The host runs ahead of the GPU, so whichever of the two takes longer in all decides."""
    graph = sum(each.seconds(card, unit) + GAP_SECONDS for each in operators)
    return LoopModel(
        launches=len(operators),
        bytes=sum(each.bytes for each in operators),
        flops=sum(each.flops for each in operators),
        seconds=max(graph, len(operators) * HOST_SECONDS),
        graph_seconds=graph,
    )
