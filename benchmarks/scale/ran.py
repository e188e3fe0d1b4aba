"""What one process really did in a call: multiply-adds, collectives, and the memory of its tensors."""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ortho_kernels.options import SRIP

_C10D = ("c10d::", "_c10d_functional::")


class Ran(TorchDispatchMode):
    """Counts the operators of a call, those of `torch.distributed` among them.

    Attributes:
        products: multiply-adds: of the penalties' operators, and of the products of matrices.
        exchanged: bytes that this rank got from others by all-to-all.
        reduced: bytes that went through all-reduce.
        peak: bytes of all tensors at most that were made meanwhile, but not of what a kernel works in.

    Args:
        options: those of the penalty, on which an operator's multiply-adds depend.
        rank: of this process.
    """

    def __init__(self, options: Any, rank: int) -> None:
        super().__init__()
        self.products, self.exchanged, self.reduced, self.peak = 0.0, 0, 0, 0
        self._held, self._known = 0, dict[int, Any]()  # bytes, and storages by their identity
        self._options, self._rank, self._has_sent = options, rank, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        if self._has_sent:
            time.sleep(0.02)  # gloo's threads let go of buffers a moment after the call that they served
        self._has_sent = name.startswith(_C10D)
        if self._has_sent:
            self._count_collective(name.partition("::")[2], args)
        else:
            self.products += self._products(name.partition("::")[2], args)
        self._note((args, kwargs), made=False)
        result = func(*args, **(kwargs or {}))
        self._note(result, made=True)
        return result

    def _note(self, values: Any, made: bool) -> None:
        for tensor in tree_leaves(values):
            if not isinstance(tensor, torch.Tensor):
                continue
            storage = tensor.untyped_storage()
            if id(storage) not in self._known:
                size = storage.nbytes() if made else 0
                self._known[id(storage)] = weakref.ref(storage, partial(self._forget, id(storage), size))
                self._held += size
                self.peak = max(self.peak, self._held)

    def _forget(self, key: int, size: int, _: Any) -> None:
        self._known.pop(key, None)
        self._held -= size

    def _count_collective(self, name: str, args: Sequence[Any]) -> None:
        """Any other than the two that are meant is an error: nothing is to move unseen."""
        if name == "allreduce_":
            self.reduced += sum(tensor.nbytes for tensor in args[0])
        elif name == "alltoall_base_":
            output, _, _, received, _ = args[:5]
            others = sum(received) - received[self._rank]
            self.exchanged += others * output.element_size()
        elif name != "barrier":
            raise RuntimeError(f"{name}: expected no collective beside all_reduce and all_to_all_single")

    def _products(self, name: str, args: Sequence[Any]) -> float:
        if name in ("mm", "mv", "bmm"):
            return math.prod(args[0].shape) * (1 if name == "mv" else args[1].shape[-1])
        if name == "soft_orthogonality":
            return _entries(*args[:3], square=True) / 2
        if name == "soft_orthogonality_backward":
            return _entries(*args[1:4], square=True)
        if name in ("srip", "srip_backward"):
            assert isinstance(self._options, SRIP)
            iterations, pairs = self._options.iterations, self._options.pairs
            if name == "srip":
                return 2 * (iterations + pairs - 1) * _entries(*args[:3])
            return 4 * pairs * _entries(*args[1:4])
        if name in ("addmm", "addmv", "baddbmm", "dot"):
            raise RuntimeError(f"{name}: a product that is not counted")
        return 0.0


def _entries(
    weights: Sequence[torch.Tensor], groups: Sequence[int], sides: Sequence[int], square: bool = False
) -> float:
    """Of all matrices n k, or n^2 k if `square`."""
    total = 0.0
    for weight, count, side in zip(weights, groups, sides, strict=True):
        rows, cols = len(weight) // count, weight[0].numel()
        total += count * rows * cols * ((cols if side else rows) if square else 1)
    return total
