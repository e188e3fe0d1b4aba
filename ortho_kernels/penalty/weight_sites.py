"""Where a model holds matrices: every parameter of two or more dimensions, and every weight that a module computes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import ParametrizationList

from ..weight_checks import is_sharded
from .computed_weights import compute_weight, computed_weights
from .experts import Batch, known_batch

_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)
# Layers of other libraries, by module path and class, which need not be imported to be recognized.
_TRANSPOSED_LINEAR = ("transformers.pytorch_utils", "Conv1D")
_DEFORMABLE_CONVOLUTION = ("torchvision.ops.deform_conv", "DeformConv2d")
# What torch.compile, FSDP, checkpoint wrappers and PEFT's adapters call the module that they wrap.
WRAPPED = frozenset(("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "base_layer"))


@dataclass(frozen=True)
class Site:
    """A place in a model where a weight is found.

    Attributes:
        names: first as `named_parameters` gives it, or the attribute's path if the weight is computed; then without one
            or more of the components that wrappers add (`module.`, `_orig_mod.`, ...); last without any of them.
        attribute: the weight's name in the module that owns it.
        modules: from the encoder down to the owner.
        weight: the tensor as it stood when the site was found.
        sources: the parameters from which it is computed, if it is.
    """

    names: tuple[str, ...]
    attribute: str
    modules: tuple[nn.Module, ...]
    weight: Tensor
    sources: tuple[Tensor, ...] = ()

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def key(self) -> str:
        return self.names[-1]

    @property
    def owner(self) -> nn.Module:
        return self.modules[-1]

    @property
    def is_embedding(self) -> bool:
        return isinstance(self.owner, _EMBEDDINGS)

    @property
    def batch(self) -> Batch | None:
        """The batch of matrices that a layer of a known class multiplies with, such as experts."""
        if nn.parameter.is_lazy(self.weight) or self.weight.dim() != 3:
            return None
        return known_batch(self.owner, self.attribute)

    @property
    def is_transposed(self) -> bool:
        """Whether its matrices stand as (in, out)."""
        batch = self.batch
        return is_transposed_linear(self.owner) if batch is None else batch.transposed

    @property
    def is_convolution(self) -> bool:
        return isinstance(self.owner, _ConvNd) or _is(self.owner, _DEFORMABLE_CONVOLUTION)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The parameters that the weight is, or is computed from."""
        return self.sources or (self.weight,)

    @property
    def filter_groups(self) -> int:
        """The groups of a convolution; 1 elsewhere."""
        return getattr(self.owner, "groups", 1) if self.is_convolution else 1

    @property
    def is_layer(self) -> bool:
        """Whether a convolution, a linear layer, an attention's projection or experts multiply with it."""
        if isinstance(self.owner, nn.MultiheadAttention):  # its output projection is a linear layer of its own
            return self.attribute in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
        if self.batch is not None:
            return True
        if self.attribute != "weight":
            return False
        if isinstance(self.owner, nn.Linear) or self.is_transposed:
            return (
                nn.parameter.is_lazy(self.weight) or self.weight.dim() <= 2
            )  # a subclass may hold a batch of matrices
        return self.is_convolution

    @property
    def identity(self) -> tuple[int, str]:
        """The same for all places that share one tensor."""
        return (id(self.owner), self.attribute) if self.sources else (id(self.weight), "")

    def reason(self) -> str:
        """Why a weight that no layer of `is_layer` owns is not covered unless asked for."""
        kind = type(self.owner).__name__
        if self.is_embedding:
            return f"{kind} table"
        if isinstance(self.owner, _NORMS) or "Norm" in kind:
            return f"{kind} parameter"
        if self.weight.dim() > 2:
            if self.weight.numel() == max(self.weight.shape):
                return f"{kind} parameter of shape {tuple(self.weight.shape)}: a vector"
            return f"{kind} parameter of {self.weight.dim()} dimensions; if it is a batch of matrices, `batch_dims` adds it"
        if isinstance(self.owner, nn.RNNBase | nn.RNNCellBase):
            return f"{kind} weight; `extra` adds it"
        if isinstance(self.owner, nn.ParameterDict | nn.ParameterList):
            return f"{kind} entry; `extra` adds it"
        return f"{kind} parameter, no layer known here; `extra` adds it"


def find_sites(encoder: nn.Module) -> list[Site]:
    """All sites of weights of two or more dimensions, and those of layers whatever their weights' dimensions are.

    A module that is reached by several paths has sites on each.

    Raises:
        ValueError: where a layer's weight is not initialized yet.
    """
    with torch.enable_grad():  # a computed weight then shows whether it is trained
        return list(_walk((encoder,), ("",)))


def is_transposed_linear(module: nn.Module) -> bool:
    """Whether this is transformers' `Conv1D`, a linear layer whose weight is (in, out)."""
    return _is(module, _TRANSPOSED_LINEAR)


def quantized_layers(encoder: nn.Module) -> Iterator[str]:
    """The names of weights that are packed where no parameter shows them (`torch.ao.nn.quantized`)."""
    for path, module in encoder.named_modules():
        if type(module).__module__.startswith("torch.ao.nn.") and callable(getattr(module, "weight", None)):
            yield f"{path}.weight" if path else "weight"


def _walk(modules: tuple[nn.Module, ...], paths: tuple[str, ...]) -> Iterator[Site]:
    module = modules[-1]
    computed = computed_weights(module)
    sources = {id(source) for parameters in computed.values() for source in parameters}
    # What a parametrization keeps stands for the weight that is computed from it.
    own = {} if isinstance(module, ParametrizationList) else module._parameters
    weights = {attribute: _look_at(module, attribute, parameters) for attribute, parameters in computed.items()}
    weights |= {name: weight for name, weight in own.items() if id(weight) not in sources}
    for attribute, weight in weights.items():
        if weight is None:
            continue
        origin = tuple(computed.get(attribute, ()))
        site = Site(tuple(path + attribute for path in paths), attribute, modules, weight, origin)
        lazy = nn.parameter.is_lazy(weight)
        if lazy and site.is_layer:
            raise ValueError(f"{site.name} is not initialized yet; run one batch through the encoder first")
        if site.is_layer or (not lazy and weight.dim() >= 2):
            yield site
    for name, child in module._modules.items():
        if child is not None and all(child is not above for above in modules):
            below = tuple(f"{path}{name}." for path in paths)
            wraps = name in WRAPPED or _wraps(module, name)
            yield from _walk((*modules, child), (*below, *paths) if wraps else below)


def _look_at(module: nn.Module, attribute: str, sources: list[Tensor]) -> Tensor | None:
    """A computed weight; where it can't be computed, the largest of its parameters in its place: it can be left out."""
    if any(map(is_sharded, sources)):
        return max(sources, key=Tensor.numel)
    return compute_weight(module, attribute)


def _wraps(module: nn.Module, name: str) -> bool:
    """Whether a module is a wrapper (DistributedDataParallel, DataParallel, AveragedModel) around `module`, all it holds."""
    return name == "module" and len(module._modules) == 1 and not module._parameters


def _is(module: nn.Module, layer: tuple[str, str]) -> bool:
    return any((kind.__module__, kind.__name__) == layer for kind in type(module).__mro__)
