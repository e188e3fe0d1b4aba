"""Counts the operations of a stretch of code that would make a GPU's host wait, on any device."""

import traceback
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

OWN_FILES = (__file__, str(Path(__file__).with_name("pretended_gpu")))
PACKAGE = str(Path(__file__).parents[1] / "ortho_kernels")
aten = torch.ops.aten

READS = {  # the host asks for a value, or for a size that depends on values
    aten._local_scalar_dense,
    aten.equal,
    aten.is_nonzero,
    aten.item,
    aten.masked_select,
    aten.allclose,
    aten.bincount,
    aten.nonzero,
    aten.unique_consecutive,
    aten._unique2,
}
COPIES = {aten.lift_fresh}  # a tensor of Python numbers, which travels from the host to the device
ACROSS = {aten._to_copy, aten.copy_}  # where one tensor is the host's and one the device's
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
TO_HOST = {torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu, torch.Tensor.__array__}

NO_WAITS = {
    "ortho_kernels/trainer/data/stream.py": "reads pictures, which lie on the host",
    "ortho_kernels/trainer/host_copies.py": "reads a copy that has arrived, or sends one from the host",
    "torch/optim/adam.py": "reads its count of steps, which torch keeps on the host",
}


class Waits(TorchDispatchMode):
    """`seen` holds a line for each wait: the operation, and the place of ours, or else of a library, that asked for it.

    Hooks that run in backward are covered: on a CPU autograd calls them in the thread that calls backward.
    """

    def __init__(self):
        super().__init__()
        self.seen: list[str] = []
        self._calls = _HostCalls(self)

    def __enter__(self):
        self._calls.__enter__()
        return super().__enter__()

    def __exit__(self, *exception):
        super().__exit__(*exception)
        self._calls.__exit__(*exception)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        packet = function.overloadpacket
        kwargs = kwargs or {}
        if packet in READS or packet in COPIES or (packet in INDEXING and _has_awaited(args)):
            self.note(str(packet))
        if packet in ACROSS and _is_awaited(packet, args, kwargs):
            self.note(str(packet), everywhere=True)
        return function(*args, **kwargs)

    def note(self, operation: str, everywhere: bool = False) -> None:
        """But for what comes from NO_WAITS, unless `everywhere`."""
        frames = [frame for frame in traceback.extract_stack() if not frame.filename.startswith(OWN_FILES)]
        if not everywhere and any(frame.filename.endswith(place) for frame in frames for place in NO_WAITS):
            return
        frames = [frame for frame in frames if "/torch/" not in frame.filename]
        ours = [frame for frame in frames if frame.filename.startswith(PACKAGE)]
        places = dict.fromkeys(f"{Path(frame.filename).name}:{frame.lineno}" for frame in (frames[-1], *ours[-1:]))
        self.seen.append(f"{operation} at {', for '.join(places)}: {frames[-1].line}")


class _HostCalls(TorchFunctionMode):
    """What takes a tensor to the host as a whole, which on a CPU no operation shows."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in TO_HOST:
            self.waits.note(f"Tensor.{function.__name__}")
        return function(*args, **kwargs or {})


def _has_awaited(args) -> bool:
    """Whether the host waits for one of these indices: for the number of a mask's places, or for a copy to the device."""
    indexed, indices = args[0], [index for index in args[1] if index is not None]
    return any(index.dtype in (torch.bool, torch.uint8) or index.device != indexed.device for index in indices)


def _is_awaited(packet, args, kwargs) -> bool:
    """Whether it is a copy between host and device that the host waits for: one that says so, or from memory that is not
    pinned."""
    if packet is aten.copy_:
        (target, source), later = args[:2], len(args) > 2 and args[2]
        after = target.device
    else:
        source, later = args[0], kwargs.get("non_blocking", False)
        after = source.device if kwargs.get("device") is None else kwargs["device"]
    from_host, to_host = (device.type == "cpu" for device in (source.device, after))
    return from_host != to_host and (not later or (from_host and not source.is_pinned()))
