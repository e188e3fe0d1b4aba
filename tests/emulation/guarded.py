"""Tensors whose memory ends where a page ends that nobody may touch: what reads or writes beyond them dies."""

import ctypes
import mmap

import torch

_LIBC = ctypes.CDLL(None, use_errno=True)
_GUARD = 4 * 1024 * 1024


def guarded(size, dtype):
    """`size` numbers, NaN all of them (integers: -1), at the end of their last page."""
    item = torch.empty((), dtype=dtype).element_size()
    data = -(-max(size * item, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
    region = mmap.mmap(-1, data + _GUARD)
    address = ctypes.addressof(ctypes.c_char.from_buffer(region))
    if _LIBC.mprotect(ctypes.c_void_p(address + data), ctypes.c_size_t(_GUARD), 0) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")
    whole = torch.frombuffer(region, dtype=dtype, count=data // item)  # keeps the region alive
    return whole[data // item - size :].fill_(torch.nan if dtype.is_floating_point else -1)


def guarded_like(tensor):
    """A copy of these sizes, strides and numbers."""
    span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    memory = guarded(span if tensor.numel() else 0, tensor.dtype)
    return memory.as_strided(tensor.shape, tensor.stride()).copy_(tensor)
