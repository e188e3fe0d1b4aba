"""A `DTensor` as the penalties see it: the weight's global shape, and the block of its matrices that is here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ...weight_checks import PLAIN, is_sharded, wraps_tensors
from .layout import Block, Layout, layout_of


class ShardedWeight:
    """What the views of weights ask of a tensor, answered for the weight as a whole.

    Args:
        tensor: the `DTensor`.
        name: what errors call it.
        batch_dims: how many leading dimensions count matrices; they are folded, as `batches.fold` does.
        transposed: whether the last two dimensions are (in, out).

    Attributes:
        layout: which block each rank holds. It takes the place of `Tensor.layout` in what the views depend on. For
            placements that are not known here it raises a `ValueError`: not at once, as batch dimensions may follow.

    Raises:
        ValueError: without a process group.
        TypeError: where its parts are no plain tensors.
    """

    def __init__(self, tensor: Any, name: str, batch_dims: int = 0, transposed: bool = False) -> None:
        if not dist.is_initialized():
            raise ValueError(
                f"{name} is a DTensor, but there is no process group: it was destroyed; use full_tensor() before"
            )
        local = tensor._local_tensor
        if wraps_tensors(local) and type(local).__name__ != "AsyncCollectiveTensor":  # which is one on its way
            raise TypeError(
                f"{name} is a DTensor of {type(local).__name__}, which wraps other tensors; expected plain dense tensors"
            )
        self.tensor, self.name = tensor, name
        self.batch_dims, self.transposed = batch_dims, transposed
        shape = list(tensor.shape)
        if transposed:
            shape[-2:] = shape[:-3:-1]
        self.shape = torch.Size([math.prod(shape[: batch_dims + 1]), *shape[batch_dims + 1 :]])
        self.dtype, self.device = tensor.dtype, tensor.device

    @cached_property
    def layout(self) -> Layout:
        mesh, placements, shape = self.tensor.device_mesh, self.tensor.placements, tuple(self.tensor.shape)
        try:
            return layout_of(mesh, placements, shape, self.batch_dims, self.transposed)
        except ValueError as error:
            raise ValueError(f"{self.name} {error}") from None

    @property
    def local(self) -> Tensor:
        """What this rank holds, once it is there."""
        local = self.tensor.to_local()
        return local.wait() if type(local).__name__ == "AsyncCollectiveTensor" else local

    @property
    def requires_grad(self) -> bool:
        return self.tensor.requires_grad

    def dim(self) -> int:
        return len(self.shape)

    def stride(self, dim: int | None = None) -> Any:
        """Those of the whole weight, as if it lay here without gaps."""
        strides = [1] * len(self.shape)
        for place in range(len(strides) - 1, 0, -1):
            strides[place - 1] = strides[place] * self.shape[place]
        return tuple(strides) if dim is None else strides[dim]

    def is_contiguous(self, memory_format: torch.memory_format = torch.contiguous_format) -> bool:
        return memory_format is torch.contiguous_format

    @property
    def group(self) -> Any:
        """The process group over which the weight is sharded."""
        return self.layout.group(self.tensor.device_mesh)

    @property
    def block(self) -> Block:
        """What this rank holds."""
        return self.layout.blocks[dist.get_rank(self.group) if self.layout.dims else 0]

    def as_matrices(self, local: Tensor) -> Tensor:
        """A local part of the weight or of a gradient, `(batch, rows, cols)`: a view where its strides allow."""
        if self.transposed:
            local = local.mT
        batch, rows = local.shape[: self.batch_dims].numel(), local.shape[self.batch_dims]
        return local.reshape(batch, rows, local.shape[self.batch_dims + 1 :].numel())

    def like(self, tensor: Any) -> ShardedWeight:
        """Another tensor of this placement, a gradient, seen in the same way."""
        return ShardedWeight(tensor, self.name, self.batch_dims, self.transposed)

    def full_tensor(self) -> Tensor:
        """The weight, gathered on every rank: a collective, for people who look at it."""
        return _in_form(self.tensor.full_tensor(), self.batch_dims, self.transposed)


def shard_weights(weights: list[Tensor], names: Sequence[str] | None = None) -> list[Any]:
    """The weights, with a `ShardedWeight` in the place of each that is sharded. What is traced is gathered.

    Raises:
        TypeError, ValueError: naming the weight, as `ShardedWeight` does.
        RuntimeError: naming the weight, where torch.func transforms it.
    """
    transformed = not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()
    if not transformed and PLAIN.issuperset(map(type, weights)):  # asked in every step: the usual answer comes first
        return weights
    found = []
    for index, weight in enumerate(weights):
        name = names[index] if names is not None else f"weights[{index}]"
        if transformed and is_sharded(_untransformed(weight)):
            raise RuntimeError(
                f"{name} is a DTensor, whose penalties torch.func can't transform; give its full_tensor()"
            )
        found.append(shard(weight, name) if is_sharded(weight) else weight)
    return found


def shard(weight: Any, name: str, batch_dims: int = 0, transposed: bool = False) -> Any:
    """As `shard_weights`, one of a form: see `ShardedWeight`."""
    if torch.compiler.is_compiling():
        return _in_form(weight.full_tensor(), batch_dims, transposed)
    return ShardedWeight(weight, name, batch_dims, transposed)


def _untransformed(tensor: Any) -> Any:
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def _in_form(tensor: Tensor, batch_dims: int, transposed: bool) -> Tensor:
    return (tensor.transpose(-1, -2) if transposed else tensor).flatten(0, batch_dims)


def empty_gradient(weight: Any) -> Any:
    """Uninitialized, of the weight's shape and dtype, and sharded as it is."""
    if isinstance(weight, ShardedWeight):
        return weight.like(torch.empty_like(weight.tensor, requires_grad=False))
    return torch.empty_like(weight, requires_grad=False)


def gathered(weight: Any) -> Tensor:
    """The weight in full, by a collective where it is sharded."""
    return weight.full_tensor() if isinstance(weight, ShardedWeight) else weight
