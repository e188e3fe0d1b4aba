"""What torch asks the driver of a GPU for, answered for one that is pretended."""

import time
from functools import partial
from types import SimpleNamespace

import torch
import torch._dynamo  # before its functions are replaced: it lists them when it is imported
from torch import Tensor, nn
from torch.optim import optimizer
from torch.utils import _foreach_utils

from ortho_kernels.backends.registry import BACKENDS

CUDA = torch.device("cuda", 0)
INSIDE = torch.device("meta")  # what C++ takes the device for: autograd and factories ask no driver for it


def is_cuda(device):
    """Whether a device, or its name, is that of the GPU; False for anything else."""
    if isinstance(device, str):
        return device.startswith(("cuda", INSIDE.type))
    return isinstance(device, torch.device) and device.type in ("cuda", INSIDE.type)


class Event:
    """Not there yet when it is first asked for: the device lags behind the host."""

    def __init__(self, arrive, enable_timing=False):
        self.arrive = arrive
        self.queries = 0
        self.seconds = None

    def record(self, stream=None):
        self.queries, self.seconds = 0, time.perf_counter()

    def query(self):
        self.queries += 1
        if self.queries > 1:
            self.arrive()
        return self.queries > 1

    def synchronize(self):
        self.queries = 1
        self.query()

    def elapsed_time(self, later):
        return 1e3 * (later.seconds - self.seconds)


def pinned(tensor, device=None):
    made = tensor.clone()
    made.pinned = True
    return made


def is_pinned(tensor, device=None):
    return getattr(tensor, "pinned", False)


def answers(arrive, device_tensor):
    """As `(object, name, value)`, to be put in the place of torch's own. `arrive` waits for the device."""
    to_of_torch, tensor_of_torch, apply_of_torch = Tensor.to, torch.tensor, nn.Module._apply

    def to(tensor, *args, **kwargs):
        """C++ asks the driver for the number of a device without one. Of what is there already, no copy is made."""
        there = INSIDE if isinstance(tensor, device_tensor) else CUDA

        def named(value):
            return there if is_cuda(value) else value

        return to_of_torch(tensor, *map(named, args), **{key: named(value) for key, value in kwargs.items()})

    def tensor(*args, device=None, **kwargs):
        return tensor_of_torch(*args, device=CUDA if is_cuda(device) else device, **kwargs)

    def apply(module, function, *args, **kwargs):
        """Parameters that move to the device stay the objects that they are; those that leave it do not."""
        own = next(module.parameters(recurse=False), None)
        before, after = (
            isinstance(each, device_tensor) for each in (own, own if own is None else function(own.detach()))
        )
        future = torch.__future__
        flags = future.get_swap_module_params_on_conversion(), future.get_overwrite_module_params_on_conversion()
        future.set_swap_module_params_on_conversion(not before)
        future.set_overwrite_module_params_on_conversion(before and not after)
        try:
            return apply_of_torch(module, function, *args, **kwargs)
        finally:
            future.set_swap_module_params_on_conversion(flags[0])
            future.set_overwrite_module_params_on_conversion(flags[1])

    def nothing(*args, **kwargs):
        return None

    facts = SimpleNamespace(name="a pretended GPU", major=9, minor=0, multi_processor_count=1, total_memory=2**30)
    stream = SimpleNamespace(synchronize=arrive, is_capturing=lambda: False, device=CUDA)
    return [
        (torch.cuda, "is_available", lambda: True),
        (torch.cuda, "device_count", lambda: 1),
        (torch.cuda, "current_device", lambda: 0),
        (torch.cuda, "set_device", nothing),
        (torch.cuda, "synchronize", lambda device=None: arrive()),
        (torch.cuda, "current_stream", lambda device=None: stream),
        (torch.cuda, "is_current_stream_capturing", lambda: False),
        (torch.cuda, "Event", partial(Event, arrive)),
        (torch.cuda, "get_device_name", lambda device=None: facts.name),
        (torch.cuda, "get_device_capability", lambda device=None: (facts.major, facts.minor)),
        (torch.cuda, "get_device_properties", lambda device=None: facts),
        (torch.cuda, "is_bf16_supported", lambda including_emulation=True: True),
        (torch.cuda, "empty_cache", nothing),
        (torch.cuda, "manual_seed_all", nothing),  # the generator of the CPU draws
        (torch.cuda, "get_rng_state", lambda device=None: torch.zeros(16, dtype=torch.uint8)),
        (torch.cuda, "set_rng_state", nothing),
        (torch.cuda, "_lazy_init", nothing),
        (torch.accelerator, "current_device_index", lambda: 0),
        (torch.accelerator, "set_device_index", nothing),
        (torch.accelerator, "current_stream", lambda device=None: stream),
        (torch, "tensor", tensor),
        (Tensor, "to", to),
        (Tensor, "pin_memory", pinned),
        (Tensor, "is_pinned", is_pinned),
        (nn.Module, "_apply", apply),
        (optimizer, "_foreach_supported_types", [*optimizer._foreach_supported_types, device_tensor]),
        (_foreach_utils, "_foreach_supported_types", [*_foreach_utils._foreach_supported_types, device_tensor]),
        (BACKENDS["cpu"], "device_type", None),
    ]
