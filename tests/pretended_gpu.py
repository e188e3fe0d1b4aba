"""A GPU that is pretended: its tensors say that they are on `cuda:0`, and the CPU computes them.

So code for a GPU runs where none is, with real numbers, and what only a GPU would notice is noticed:

- an operation on tensors of the device and of the host together
- a generator of the other device
- an operation that has no kernel for CUDA, where torch is built for CUDA
- values that are read before their copy to the host has arrived: until then they are not there
- pinned memory that is written to while its copy to the device is under way
"""

import time
from contextlib import ExitStack
from functools import cache
from types import SimpleNamespace
from unittest.mock import patch

import torch
import torch._dynamo  # before its functions are replaced: it lists them when it is imported
from torch import Tensor, nn
from torch.optim import optimizer
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from ortho_kernels.backends.registry import BACKENDS, use_backend

CUDA = torch.device("cuda", 0)
INSIDE = torch.device("meta")  # what C++ takes the device for: autograd and factories ask no driver for it
aten = torch.ops.aten

COPIES = {aten.copy_.default, aten._foreach_copy_.default, aten._to_copy.default, aten.copy.default}
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
WITHOUT_NUMBERS = {aten.cat.default, aten.stack.default}  # whose tensors without dimensions count like others
GARBAGE = 77  # what memory of whole numbers holds before a copy to it has arrived
READS = {aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default, aten.masked_select.default}


class DeviceTensor(Tensor):
    """`held` has the same memory, and is of the CPU."""

    @staticmethod
    def __new__(cls, held):
        made = Tensor._make_subclass(cls, held, False, dispatch_device=True, device_for_backend_keys=CUDA)
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    is_meta = property(lambda self: False)

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _gpu().compute(function, args, kwargs or {})

    def cuda(self, device=None, non_blocking=False):
        return self

    def tolist(self):
        return self.cpu().tolist()

    def new_tensor(self, data, dtype=None, device=None, **kwargs):
        return torch.tensor(data, dtype=dtype or self.dtype, device=device or CUDA, **kwargs)

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            made = self.detach().clone()
            if getattr(self, "_is_param", False):
                made = nn.Parameter(made, self.requires_grad)
            memo[id(self)] = made.requires_grad_(self.requires_grad)
        return memo[id(self)]

    def __reduce_ex__(self, protocol):
        held = self.detach().held
        return (nn.Parameter(held, self.requires_grad) if getattr(self, "_is_param", False) else held).__reduce_ex__(
            protocol
        )

    def __repr__(self, **_):
        return f"DeviceTensor({self.detach().held})"


class PretendedGpu(TorchDispatchMode):
    """Within it there is one GPU. Its penalties are computed by the C++ kernels of the CPU."""

    running: "PretendedGpu | None" = None

    def __init__(self):
        super().__init__()
        self.to_host: list[tuple[Tensor, Tensor]] = []  # copies under way: target and values
        self.from_pinned: list[tuple[Tensor, Tensor]] = []  # source and the values that it had
        self.stack = ExitStack()

    def __enter__(self):
        assert not torch.cuda.is_available(), "there is a GPU here: ask it"
        if PretendedGpu.running is None:
            PretendedGpu.running = self
            for target, name, value in _patches(self):
                self.stack.enter_context(patch.object(target, name, value))
            self.stack.enter_context(use_backend("cpu"))
            lifts = torch._C._only_lift_cpu_tensors()
            torch._C._set_only_lift_cpu_tensors(True)
            self.stack.callback(torch._C._set_only_lift_cpu_tensors, lifts)
            self.stack.callback(setattr, PretendedGpu, "running", None)
        return super().__enter__()

    def __exit__(self, *exception):
        super().__exit__(*exception)
        self.arrive()
        self.stack.close()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return self.compute(function, args, kwargs or {})

    def compute(self, function, args, kwargs):
        if function is torch.ops.prim.device.default:
            return INSIDE
        if function is aten._fused_sdp_choice.default:
            return 0  # plain products: the fused kernels of CPU and GPU are different operators
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        ours = {id(leaf.held): leaf for leaf in leaves if isinstance(leaf, DeviceTensor)}
        asked = kwargs.get("device")
        on_gpu = bool(ours) if asked is None else _is_cuda(asked)
        if ours or on_gpu:
            self._check(function, args, kwargs, leaves, on_gpu)
        if function in READS:
            self.arrive()
        if asked is not None and on_gpu:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        if function is aten._to_copy.default and on_gpu != bool(ours):
            return self._across(args[0], kwargs, on_gpu)
        if function is aten.copy_.default and isinstance(args[0], DeviceTensor) != isinstance(args[1], DeviceTensor):
            self._note_copy(args)
        with torch.no_grad():
            found = function(*tree_map(_held, args), **tree_map(_held, kwargs))
        if torch.Tag.inplace_view in function.tags and ours:
            raise NotImplementedError(f"{function}: the pretended GPU changes no shape in place")
        if not on_gpu:
            return found
        return tree_map(lambda value: _on_device(value, ours), found)

    def arrive(self):
        """All copies are through."""
        for target, values in self.to_host:
            torch.Tensor.copy_(target, values)
        self.to_host.clear()
        for source, before in self.from_pinned:
            assert torch.equal(source, before), "pinned memory was written to while it was copied to the device"
        self.from_pinned.clear()

    def _check(self, function, args, kwargs, leaves, on_gpu):
        """Raises RuntimeError for what a GPU can't do."""
        own = function.namespace in ("aten", "torchvision")
        if on_gpu and own and torch.version.cuda and not _has_cuda_kernel(function.name()):
            raise RuntimeError(f"{function} has no kernel for CUDA")
        generator = kwargs.get("generator")
        if on_gpu and generator is not None and generator.device.type != "cuda":
            raise RuntimeError(f"{function}: expected a generator of cuda, found one of {generator.device}")
        if function in COPIES or not any(isinstance(leaf, DeviceTensor) for leaf in leaves):
            return
        if function in INDEXING and isinstance(args[0], DeviceTensor):
            leaves = [args[0], *args[2:3]]  # places may be of the host
        host = [leaf for leaf in leaves if not isinstance(leaf, DeviceTensor)]
        numbers = function not in WITHOUT_NUMBERS and not (function._schema.is_mutable and args[0] is host[:1])
        if any(leaf.dim() > 0 or not numbers for leaf in host):
            raise RuntimeError(f"{function}: expected all tensors on one device, found some on cuda:0 and some on cpu")

    def _across(self, source, kwargs, on_gpu):
        later = kwargs.pop("non_blocking", False)
        made = aten._to_copy.default(_held(source), **{**kwargs, "device": torch.device("cpu"), "pin_memory": None})
        if on_gpu:
            if later and getattr(source, "pinned", False):
                self.from_pinned.append((source, source.clone()))
            return DeviceTensor(made)
        if not later:
            self.arrive()
            return made
        target = torch.full_like(made, torch.nan if made.is_floating_point() else GARBAGE)
        self.to_host.append((target, made))
        return target

    def _note_copy(self, args):
        later = len(args) > 2 and args[2]
        if isinstance(args[1], DeviceTensor):
            if later:
                raise NotImplementedError("a copy into host memory that nobody waits for: make it by `to`")
            self.arrive()
        elif later and getattr(args[1], "pinned", False):
            self.from_pinned.append((args[1], args[1].clone()))


class Event:
    """Not there yet when it is first asked for: the device lags behind the host."""

    def __init__(self, enable_timing=False, **_):
        self.asked = 0
        self.time = None

    def record(self, stream=None):
        self.asked, self.time = 0, time.perf_counter()

    def query(self):
        self.asked += 1
        if self.asked > 1:
            _gpu().arrive()
        return self.asked > 1

    def synchronize(self):
        self.asked = 2
        _gpu().arrive()

    def elapsed_time(self, later):
        assert self.time is not None
        assert later.time is not None
        return 1e3 * (later.time - self.time)


def _patches(gpu):
    """What of torch is another on this GPU: `(object, name, value)`."""
    cuda, apply, to_of_torch, tensor_of_torch = torch.cuda, nn.Module._apply, Tensor.to, torch.tensor
    nothing = lambda *_, **__: None  # noqa: E731
    stream = SimpleNamespace(synchronize=gpu.arrive, wait_stream=nothing, wait_event=nothing, device=CUDA)
    facts = SimpleNamespace(name="a pretended GPU", major=9, minor=0, multi_processor_count=1, total_memory=2**30)

    def pin(tensor, device=None):
        made = tensor.clone()
        made.pinned = True
        return made

    def to(tensor, *args, **kwargs):
        """C++ asks the driver for the number of a device without one. Of what is there already, no copy is made."""
        there = INSIDE if isinstance(tensor, DeviceTensor) else CUDA
        name = lambda value: there if _is_cuda(value) else value  # noqa: E731
        return to_of_torch(tensor, *map(name, args), **{key: name(value) for key, value in kwargs.items()})

    def numbers(*args, device=None, **kwargs):
        return tensor_of_torch(*args, device=CUDA if _is_cuda(device) else device, **kwargs)

    def move(module, *args, **kwargs):
        """Parameters stay the objects that they are."""
        swaps = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            return apply(module, *args, **kwargs)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(swaps)

    return [
        (cuda, "is_available", lambda: True),
        (cuda, "device_count", lambda: 1),
        (cuda, "current_device", lambda: 0),
        (cuda, "set_device", nothing),
        (cuda, "synchronize", lambda device=None: gpu.arrive()),
        (cuda, "current_stream", lambda device=None: stream),
        (cuda, "Event", Event),
        (cuda, "get_device_name", lambda device=None: facts.name),
        (cuda, "get_device_capability", lambda device=None: (9, 0)),
        (cuda, "get_device_properties", lambda device=None: facts),
        (cuda, "is_bf16_supported", lambda including_emulation=True: True),
        (cuda, "empty_cache", nothing),
        (cuda, "manual_seed_all", nothing),
        (cuda, "get_rng_state", lambda device=None: torch.zeros(16, dtype=torch.uint8)),
        (cuda, "set_rng_state", nothing),
        (cuda, "_lazy_init", nothing),
        (torch, "tensor", numbers),
        (Tensor, "to", to),
        (Tensor, "pin_memory", pin),
        (Tensor, "is_pinned", lambda tensor, device=None: getattr(tensor, "pinned", False)),
        (nn.Module, "_apply", move),
        (optimizer, "_foreach_supported_types", [*optimizer._foreach_supported_types, DeviceTensor]),
        (_foreach_utils, "_foreach_supported_types", [Tensor, DeviceTensor]),
        (BACKENDS["cpu"], "device_type", None),
    ]


def _gpu():
    assert PretendedGpu.running is not None, "a tensor of the pretended GPU outlives it"
    return PretendedGpu.running


def _held(value):
    return value.held if isinstance(value, DeviceTensor) else value


def _on_device(value, ours):
    """A result of an operation on held tensors: one of those that were given, where the operation works in place."""
    if not isinstance(value, Tensor):
        return value
    return ours[id(value)] if id(value) in ours else DeviceTensor(value)


def _is_cuda(value):
    if isinstance(value, str):
        value = torch.device(value) if value.startswith(("cuda", "meta")) else None
    return isinstance(value, torch.device) and value.type in ("cuda", "meta")


@cache
def _has_cuda_kernel(name):
    keys = ("CUDA", "CompositeImplicitAutograd", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")
    return any(torch._C._dispatch_has_kernel_for_dispatch_key(name, key) for key in keys)
