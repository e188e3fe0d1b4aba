"""What is accepted as a weight, and what is said where something is not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

PLAIN = frozenset((nn.Parameter, Tensor))  # the types whose memory is their own
DTYPES = frozenset((torch.float64, torch.float32, torch.bfloat16, torch.float16))


def is_integer(number: object) -> TypeGuard[int]:
    """Whether this is an integer, of Python or of numpy; True and False are none."""
    return type(number) is int or (isinstance(number, Integral) and not isinstance(number, bool))


def is_count(number: object) -> TypeGuard[int]:
    """Whether this is a positive integer."""
    return is_integer(number) and int(number) > 0


def is_number(number: Any) -> TypeGuard[float]:
    """Whether this is a finite number, of Python or of numpy; True and False are none, and no tensor is."""
    is_real = isinstance(number, (int, float, Real)) and not isinstance(number, bool)
    return is_real and -math.inf < number < math.inf  # Dynamo can't trace isfinite


def check_groups(groups: int | Sequence[int], weights: int) -> tuple[int, ...]:
    """One number of groups for each weight."""
    if not isinstance(groups, Iterable):
        return (groups,) * weights
    groups = tuple(groups)
    if len(groups) != weights:
        raise ValueError(f"groups must be one int, or one int a weight: got {len(groups)} for {weights} weights")
    return groups


def check_weights(weights: Sequence[Tensor], groups: Sequence[int], names: Sequence[str] | None = None) -> None:
    """Raises `TypeError` or `ValueError`, naming the weight, where one can't be penalized."""
    device = None
    for index, (weight, count) in enumerate(zip(weights, groups, strict=True)):
        problem = _problem(weight, count)
        if problem is None:
            device = weight.device if device is None else device
            if weight.device == device:
                continue
            problem = ValueError(
                f"is on {weight.device}, but the weights before it are on {device}; "
                "call once for each device and add the penalties"
            )
        name = names[index] if names is not None else f"weights[{index}]"
        raise type(problem)(f"{name} {problem}")


def _problem(weight: Any, groups: int) -> Exception | None:
    """What is wrong with this weight, worded to follow its name."""
    sharded = is_sharded_weight(weight)
    if not isinstance(weight, Tensor) and not sharded:
        return TypeError(f"is a {type(weight).__name__}; expected a torch.Tensor")
    if is_sharded(weight):
        return ValueError(
            "is a DTensor, of which each process holds a part; use OrthogonalityPenalty, which has the same start vectors "
            "on every rank and gives each its part of the gradient, or give its full_tensor()"
        )
    if wraps_tensors(weight):
        return TypeError(
            f"is a {type(weight).__name__}, which wraps other tensors; expected a plain dense tensor "
            "(of a quantized weight: weight.dequantize())"
        )
    if weight.dtype not in DTYPES:
        return TypeError(f"has dtype {weight.dtype}; expected float64, float32, bfloat16 or float16")
    if not sharded and weight.layout is not torch.strided:
        return TypeError(f"has layout {weight.layout}; expected a dense tensor (try weight.to_dense())")
    if weight.device.type == "meta":
        return ValueError(
            "is on the meta device and holds no numbers; materialize the model first (to_empty, then load), "
            "or leave out what is offloaded"
        )
    if weight.dim() < 2:
        return ValueError(
            f"has shape {tuple(weight.shape)}; "
            "expected at least 2 dimensions (out, in, ...), as conv and linear weights have"
        )
    if not is_count(groups):
        return ValueError(f"was given groups={groups!r}; expected a positive int")
    if weight.shape[0] % groups:
        return ValueError(f"has {weight.shape[0]} output channels, which {groups} groups don't divide")
    return None


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a `DTensor`. By its name: to import its class takes a while, and Dynamo doesn't see its attributes."""
    return type(tensor).__name__ == "DTensor"


def is_sharded_weight(weight: object) -> bool:
    """Whether it is a `ShardedWeight`. By its name, as its class is of no use without processes."""
    return type(weight).__name__ == "ShardedWeight"


def wraps_tensors(tensor: Tensor) -> bool:
    """Whether this holds its numbers in other tensors: a `DTensor`, a quantized weight of torchao."""
    return type(tensor) not in PLAIN and is_traceable_wrapper_subclass(tensor)


def check_storage(tensors: Iterable[Tensor], names: Sequence[str] | None = None) -> None:
    """Raises `RuntimeError`, naming the weight, where its storage ends before its shape and strides do.

    FSDP1 frees the storage of parameters between uses. To be called wherever torch reads a weight; the native kernels
    check for themselves. What is being traced passes: it has no numbers.
    """
    if torch.compiler.is_compiling():
        return
    for index, tensor in enumerate(tensors):
        if is_sharded_weight(tensor):
            continue
        while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            tensor = torch._C._functorch.get_unwrapped(tensor)
        if isinstance(tensor, FakeTensor | FunctionalTensor):
            continue
        needed, held = _bytes_reached(tensor), tensor.untyped_storage().nbytes()
        if held < needed:
            name = names[index] if names is not None else f"weights[{index}]"
            raise RuntimeError(
                f"{name} has {f'a storage of {held} bytes' if held else 'no storage'}, but its shape and strides need "
                f"{needed} bytes; FSDP frees parameters between uses: compute the penalty where they are gathered "
                "(FSDP.summon_full_params), or use FSDP2 (fully_shard)"
            )


def _bytes_reached(tensor: Tensor) -> int:
    """How many bytes of its storage a tensor reaches into."""
    if tensor.is_contiguous():
        entries = tensor.numel()
    else:
        entries = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (int(tensor.storage_offset()) + entries) * tensor.element_size() if entries else 0
