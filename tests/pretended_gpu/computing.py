"""Tensors of the pretended GPU, and how they are computed."""

from contextlib import ExitStack, contextmanager
from functools import cache
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ortho_kernels.backends.registry import use_backend

from .autocast import Autocast
from .driver import CUDA, INSIDE, answers, is_cuda

HOST = torch.device("cpu")
aten = torch.ops.aten

COPIES = {aten.copy_.default, aten._foreach_copy_.default, aten._to_copy.default}
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
READS = {aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default, aten.masked_select.default}
# All take numbers of the host, tensors without dimensions, but these.
WITHOUT_NUMBERS = {aten.cat.default, aten.stack.default, aten.index_select.default, aten.index_copy_.default}
WITHOUT_NUMBERS |= {aten.index_add_.default, aten.gather.default, aten.scatter.src, aten.scatter.value}
GARBAGE = 77  # what memory of whole numbers holds before a copy to it has arrived


def _set_data(tensor, data):
    if not isinstance(data, DeviceTensor):
        raise NotImplementedError("the pretended GPU makes no tensor one of the host in place")
    Tensor.data.__set__(tensor, data)
    tensor.held = data.held


class DeviceTensor(Tensor):
    """`held` has the same memory, and is of the CPU."""

    @staticmethod
    def __new__(cls, held):
        made = Tensor._make_subclass(cls, held, False, dispatch_device=True, device_for_backend_keys=CUDA)
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl
    data = property(Tensor.detach, _set_data)
    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    is_meta = property(lambda self: False)

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        """Where the mode is not active: in other threads."""
        assert PretendedGpu.running is not None, "a tensor of the pretended GPU outlives it"
        return PretendedGpu.running.compute(function, args, kwargs or {})

    def cuda(self, device=None, non_blocking=False):
        return self

    def tolist(self):
        return self.cpu().tolist()

    def numpy(self, *, force=False):
        if force:
            return self.detach().cpu().numpy()
        raise TypeError("can't convert a tensor of cuda:0 to numpy: copy the tensor to host memory first, by .cpu()")

    def __array__(self, dtype=None):
        return self.numpy()

    def new_tensor(self, data, dtype=None, device=None, **kwargs):
        return torch.tensor(data, dtype=dtype or self.dtype, device=device or CUDA, **kwargs)

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            copied = self.detach().clone()
            is_parameter = getattr(self, "_is_param", False)
            memo[id(self)] = (nn.Parameter(copied) if is_parameter else copied).requires_grad_(self.requires_grad)
        return memo[id(self)]

    def __reduce_ex__(self, protocol):
        """As a tensor of the CPU: files are read to the host."""
        held = self.detach().held
        is_parameter = getattr(self, "_is_param", False)
        return (nn.Parameter(held, self.requires_grad) if is_parameter else held).__reduce_ex__(protocol)

    def __repr__(self, **_):
        return f"DeviceTensor({self.detach().held})"


class PretendedGpu(TorchDispatchMode):
    """Within it there is one GPU. Its penalties are computed by the C++ kernels of the CPU."""

    running: "PretendedGpu | None" = None

    def __init__(self):
        super().__init__()
        self.to_host: list[tuple[Tensor, Tensor]] = []  # copies under way: target and values
        self.from_pinned: list[tuple[Tensor, Tensor]] = []  # source, and the values that it had
        self.stack = ExitStack()

    def __enter__(self):
        assert PretendedGpu.running is None, "one GPU is pretended at a time"
        self.stack.enter_context(patch.object(PretendedGpu, "running", self))
        for target, name, value in answers(self.arrive, DeviceTensor):
            self.stack.enter_context(patch.object(target, name, value))
        lifts = torch._C._only_lift_cpu_tensors()  # else torch.tensor asks the driver
        torch._C._set_only_lift_cpu_tensors(True)
        self.stack.callback(torch._C._set_only_lift_cpu_tensors, lifts)
        self.stack.enter_context(use_backend("cpu"))
        self.stack.enter_context(Autocast())
        return super().__enter__()

    def __exit__(self, *exception):
        super().__exit__(*exception)
        try:
            self.arrive()
        finally:
            self.stack.close()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return self.compute(function, args, kwargs or {})

    def arrive(self):
        """All copies are through."""
        for target, values in self.to_host:
            target.copy_(values)
        self.to_host.clear()
        copied, self.from_pinned = self.from_pinned, []
        for source, before in copied:
            assert torch.equal(source, before), "pinned memory was written to while it was copied to the device"

    def compute(self, function, args, kwargs):
        """What an operation gives, as it came from torch's dispatcher."""
        if function is torch.ops.prim.device.default:
            return INSIDE
        if function is aten._fused_sdp_choice.default:
            return 0  # plain products: CPU and GPU have other operators for fused ones
        leaves = [*_tensors(args), *_tensors(kwargs.values())]
        ours = {id(leaf.held): leaf for leaf in leaves if isinstance(leaf, DeviceTensor)}
        asked = kwargs.get("device")
        on_gpu = bool(ours) if asked is None else is_cuda(asked)
        if not ours and not on_gpu:
            return function(*args, **kwargs)
        _check(function, args, kwargs, leaves, on_gpu)
        if function in READS:
            self.arrive()
        if on_gpu and asked is not None:
            kwargs = {**kwargs, "device": HOST}
        if function is aten._to_copy.default and on_gpu != bool(ours):
            return self._carry_over(args[0], kwargs, on_gpu)
        with torch.no_grad(), _right_convolutions(leaves):
            found = function(*_mapped(_held, args), **{key: _mapped(_held, value) for key, value in kwargs.items()})
        if function is aten.copy_.default:
            self._note_copy(*args)
        if torch.Tag.inplace_view in function.tags:
            raise NotImplementedError(f"{function}: the pretended GPU changes no shape in place")
        return _mapped(lambda value: _on_device(value, ours), found) if on_gpu else found

    def _carry_over(self, source, kwargs, on_gpu):
        """A tensor of the other side."""
        later = kwargs.pop("non_blocking", False)
        made = aten._to_copy.default(_held(source), **{**kwargs, "device": HOST, "pin_memory": None})
        made = DeviceTensor(made) if on_gpu else made
        self._note_copy(made, source, later)
        return made

    def _note_copy(self, target, source, later=False):
        """A copy that is done, if it went from one side to the other: with `later`, it is still under way."""
        from_gpu, to_gpu = (isinstance(each, DeviceTensor) for each in (source, target))
        if from_gpu and not to_gpu and not later:
            self.arrive()
        elif from_gpu and not to_gpu:
            self.to_host.append((target, target.clone()))
            target.fill_(torch.nan if target.is_floating_point() else GARBAGE)
        elif to_gpu and not from_gpu and later and source.is_pinned():
            self.from_pinned.append((source, source.clone()))


def _check(function, args, kwargs, leaves, on_gpu):
    """Raises RuntimeError for what a GPU can't do."""
    of_torch = function.namespace in ("aten", "torchvision")
    if on_gpu and of_torch and torch.version.cuda and not _has_cuda_kernel(function.name()):
        raise RuntimeError(f"{function} has no kernel for CUDA")
    generator = kwargs.get("generator")
    if on_gpu and generator is not None and generator.device.type != "cuda":
        raise RuntimeError(f"{function}: expected a generator of cuda, found one of {generator.device}")
    if function in COPIES or not any(isinstance(leaf, DeviceTensor) for leaf in leaves):
        return
    if function in INDEXING and isinstance(args[0], DeviceTensor):
        leaves = [args[0], *args[2:3]]  # places may be of the host
    host = [leaf for leaf in leaves if not isinstance(leaf, DeviceTensor)]
    written = args[0] if function._schema.is_mutable else None
    if any(leaf.dim() > 0 or leaf is written or function in WITHOUT_NUMBERS for leaf in host):
        raise RuntimeError(f"{function}: expected all tensors on one device, found some on cuda:0 and some on cpu")


@contextmanager
def _right_convolutions(leaves):
    """oneDNN's weight gradients in bfloat16 of 3 x 3 convolutions with stride 2, on one pixel, are memory that nobody has
    written to (torch 2.14.1, AMX)."""
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(before and all(leaf.dtype not in (torch.float16, torch.bfloat16) for leaf in leaves))
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


@cache
def _has_cuda_kernel(name):
    keys = ("CUDA", "CompositeImplicitAutograd", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")
    return any(torch._C._dispatch_has_kernel_for_dispatch_key(name, key) for key in keys)


def _tensors(values):
    """Also those in lists, however deep: torch's own trees take three times as long."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _mapped(function, value):
    """`function` of a value, or of all in a list."""
    return (
        type(value)([_mapped(function, each) for each in value])
        if isinstance(value, (list, tuple))
        else function(value)
    )


def _held(value):
    return value.held if isinstance(value, DeviceTensor) else value


def _on_device(value, ours):
    """A result of an operation on held tensors: one of those that were given, where the operation works in place."""
    if not isinstance(value, Tensor):
        return value
    return ours[id(value)] if id(value) in ours else DeviceTensor(value)
