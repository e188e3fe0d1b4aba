"""What a forward pass does with each parameter, noted below autograd, where no module has a name."""

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MATRIX = slice(0, 2)  # (a, b)
AFTER_BIAS = slice(1, 3)  # (bias, a, b)
ATTENTION = slice(0, 3)  # (query, key, value, mask)
ALL = slice(None)

# The operators that multiply matrices, each with the arguments that are its factors.
PRODUCTS = {
    "aten::mm": MATRIX,
    "aten::bmm": MATRIX,
    "aten::mv": MATRIX,
    "aten::dot": MATRIX,
    "aten::addmm": AFTER_BIAS,
    "aten::_addmm_activation": AFTER_BIAS,
    "aten::addmv": AFTER_BIAS,
    "aten::addbmm": AFTER_BIAS,
    "aten::baddbmm": AFTER_BIAS,
    "aten::_grouped_mm": MATRIX,
    "aten::_trilinear": ALL,
    "aten::convolution": MATRIX,
    "torchvision::deform_conv2d": MATRIX,
    "aten::_scaled_dot_product_flash_attention_for_cpu": ATTENTION,
    "aten::_scaled_dot_product_attention_math": ATTENTION,
    "aten::mkldnn_rnn_layer": ALL,
}
LOOKUPS = {"aten::embedding", "aten::_embedding_bag", "aten::_embedding_bag_forward_only"}
# Tensors that take no more than a shape from others, or whose data is Python's.
CONSTANTS = {"aten::zeros_like", "aten::ones_like", "aten::empty_like", "aten::new_zeros", "aten::lift_fresh"}


class ParameterUse(TorchDispatchMode):
    """Within it, notes which parameters of two or more dimensions the operators read.

    A storage that is computed from parameters and constants alone (a view, a copy, a standardized or normalized weight)
    stands for its parameters. What meets an input of the model is data, and so are the rows of an embedding.

    Attributes:
        products: names of the parameters that are a factor of a matrix product, a convolution or a recurrence.
        lookups: names of the parameters that an embedding reads.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.products: set[str] = set()
        self.lookups: set[str] = set()
        self._sources: dict[int, frozenset[str]] = {}  # storage -> its parameters; a constant has none
        self._alive: list[torch.UntypedStorage] = []  # so that no other storage takes the place of one of them
        for buffer in model.buffers():
            self._note(buffer, frozenset())
        for name, parameter in model.named_parameters():
            self._note(parameter, frozenset({name}) if parameter.dim() >= 2 else frozenset())

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = operator.name().partition(".")[0]
        if name in PRODUCTS:
            self.products |= self._parameters(args[PRODUCTS[name]])
        if name in LOOKUPS:
            self.lookups |= self._parameters(args[:1])
        read = self._parameters((args, kwargs))
        inputs = [self._sources.get(_storage(tensor)) for tensor in _tensors((args, kwargs))]
        result = operator(*args, **kwargs)
        if name in CONSTANTS:
            inputs, read = [], frozenset()
        is_data = None in inputs or name in LOOKUPS
        for tensor in _tensors(result):
            if is_data:
                self._sources.pop(_storage(tensor), None)  # where it is written in place
            else:
                self._note(tensor, read)
        return result

    def _note(self, tensor: torch.Tensor, parameters: frozenset[str]) -> None:
        self._sources[_storage(tensor)] = self._sources.get(_storage(tensor), frozenset()) | parameters
        self._alive.append(tensor.untyped_storage())

    def _parameters(self, arguments) -> frozenset[str]:
        known = (self._sources.get(_storage(tensor)) for tensor in _tensors(arguments))
        return frozenset().union(*(parameters for parameters in known if parameters))


def _tensors(tree) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def parameters_behind(model: nn.Module, name: str) -> set[str]:
    """The parameters that a weight of this name is or is computed from, each under the first of its names."""
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    if name in parameters:
        return {first[id(parameters[name])]}
    layer, _, attribute = name.rpartition(".")
    sources = f"{layer}.parametrizations.{attribute}.original", f"{name}_"  # of a parametrization, of a hook
    return {source for source in first.values() if source.startswith(sources)}
