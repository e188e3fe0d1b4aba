"""Spectra of the weights of a network's layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from .batch_norm import folded_weight, following_batch_norms
from .convolution_operator import operator_singular_values
from .covariance import descending_eigenvalues
from .forward_passes import evaluation_mode, forward_passes
from .ranks import effective_rank, singular_values, stable_rank


@dataclass(frozen=True)
class WeightSpectrum:
    """Of one weight, read as a matrix with a filter in each row: `(groups, rows, cols)`.

    Attributes:
        shape: groups, rows and cols: a linear weight's 1, out, in; a convolution's g, out / g, in / g times kernel.
        singular_values: of the matrix, float64 `(groups, min(rows, cols))`, descending.
        eigenvalues: of the covariance of its filters, float64 `(groups, rows)`, descending; see `filter_eigenvalues`.
        norm: the name of the batch norm that is folded in, if one is.
        input_size: of the maps that the convolution was seen to take, where it was measured as an operator.
        operator: the singular values of that operator, float64, descending; see `operator_singular_values`.
    """

    shape: tuple[int, int, int]
    singular_values: Tensor
    eigenvalues: Tensor
    norm: str | None = None
    input_size: tuple[int, ...] | None = None
    operator: Tensor | None = None

    @classmethod
    def of(cls, weight: Tensor, groups: int = 1, norm: str | None = None) -> "WeightSpectrum":
        """Of a weight `(out, ...)` of a layer of that many groups."""
        matrix = weight.detach().reshape(groups, len(weight) // groups, -1)
        shape = (groups, matrix.shape[1], matrix.shape[2])
        return cls(shape, singular_values(matrix), filter_eigenvalues(matrix), norm)

    @property
    def effective_rank(self) -> float:
        """Of the singular values, the mean over groups: how many directions the filters span evenly."""
        return effective_rank(self.singular_values)

    @property
    def stable_rank(self) -> float:
        """The mean over groups: how many directions are as strong as the strongest."""
        return stable_rank(self.singular_values)

    @property
    def full_rank(self) -> int:
        """What both ranks are at most."""
        return min(self.shape[1:])


def filter_eigenvalues(matrix: Tensor) -> Tensor:
    """Eigenvalues of the centered covariance of filters `(..., rows, cols)`, float64 `(..., rows)`, descending.

    As in numpy.cov, each row (a filter) is a variable and each column an observation: every filter's own mean is taken
    away, and products are divided by cols - 1. So there are as many as output channels, in the order of magnitude of the
    covariance of the layer's outputs for white inputs. NaN for a weight that is not finite.
    """
    matrix = matrix.detach().cpu().double()
    centered = matrix - matrix.mean(-1, keepdim=True)
    return descending_eigenvalues(centered @ centered.mT / max(matrix.shape[-1] - 1, 1))


def weight_spectra(
    network: nn.Module,
    layers: str | Sequence[str] | None = None,
    *,
    images: Tensor | None = None,
    fold_batch_norm: bool = False,
    operators: bool = False,
) -> dict[str, WeightSpectrum]:
    """The spectra of convolutions and linear layers, by the names of their weights.

    Args:
        network: any module; nothing in it changes.
        layers: patterns of names, as in a shell, of weights or of modules that hold them (`"layer4"`, `"*.conv2"`); by
            default all.
        images: a batch `(pictures, ...)` as the network takes it, for the two options that need a forward pass. Two of its
            pictures are passed on.
        fold_batch_norm: each output channel is scaled as the batch norm behind it does in evaluation mode. That may turn
            a finding around: say which of both you report.
        operators: measure convolutions as maps of whole maps too, of the size that the forward pass shows.

    Raises:
        ValueError: for a pattern that nothing matches, for an option without the pictures that it needs, and for a layer
            that is asked for by its full name and has no batch norm to fold.
    """
    if (fold_batch_norm or operators) and images is None:
        option = "fold_batch_norm" if fold_batch_norm else "operators"
        raise ValueError(f"{option}=True needs images: a forward pass shows which norm follows a layer, and map sizes")
    with evaluation_mode(network):  # a parametrization in training mode would move
        found = matrices_of(network)
        patterns = [layers] if isinstance(layers, str) else layers
        names = list(found) if patterns is None else _matching(found, patterns)
        norms = following_batch_norms(network, images[:2]) if fold_batch_norm and images is not None else {}
        sizes = _map_sizes(network, images[:2]) if operators and images is not None else {}
        spectra = {}
        for name in names:
            layer, path = found[name], name.rpartition(".")[0]
            norm = norms.get(path)
            if fold_batch_norm and norm is None and {name, path} & set(patterns or ()):
                raise ValueError(f"{name} has no batch norm right behind it to fold in; leave it out, or do not fold")
            if norm is None:
                weight = getattr(layer, name.rpartition(".")[2])
            else:
                weight = folded_weight(layer, network.get_submodule(norm))
            groups = layer.groups if isinstance(layer, _ConvNd) else 1
            spectrum = WeightSpectrum.of(weight, groups, norm)
            size = sizes.get(path)
            if isinstance(layer, _ConvNd) and size is not None:
                form: Any = {"stride": layer.stride, "dilation": layer.dilation, "groups": groups}
                values = operator_singular_values(weight, size, **form)
                spectrum = replace(spectrum, input_size=size, operator=values)
            spectra[name] = spectrum
    return spectra


def matrices_of(network: nn.Module) -> dict[str, nn.Module]:
    """The layers that multiply with a matrix, by the names of their weights; what is in two places, a layer or a weight
    that layers share, has its first name."""
    found: dict[str, nn.Module] = {}
    shared: set[int] = set()
    for path, module in network.named_modules():
        name = None
        if isinstance(module, _ConvNd | nn.Linear):
            name = "weight"
        elif isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            name = "in_proj_weight"
        if name is None or id(weight := module._parameters.get(name)) in shared:
            continue
        if weight is not None:  # a parametrized one is computed anew each time
            shared.add(id(weight))
        found[f"{path}.{name}" if path else name] = module
    return found


def weights_summary(spectra: Mapping[str, WeightSpectrum]) -> dict[str, dict[str, float]]:
    """Shares of the full rank, in [0, 1], in two ways that may disagree.

    `by_layer` is the mean over layers, so that a small layer counts like a large one. `pooled` takes the singular values of
    all layers as one spectrum: large layers, and layers of large weights, count more. NaN without a layer.
    """
    if not spectra:
        return {key: {"by_layer": float("nan"), "pooled": float("nan")} for key in ("effective_rank", "stable_rank")}
    pooled = torch.cat([each.singular_values.flatten() for each in spectra.values()])
    return {
        "effective_rank": {
            "by_layer": sum(each.effective_rank / max(each.full_rank, 1) for each in spectra.values()) / len(spectra),
            "pooled": effective_rank(pooled) / max(len(pooled), 1),
        },
        "stable_rank": {
            "by_layer": sum(each.stable_rank / max(each.full_rank, 1) for each in spectra.values()) / len(spectra),
            "pooled": stable_rank(pooled) / max(len(pooled), 1),
        },
    }


def _matching(found: Mapping[str, nn.Module], patterns: Sequence[str]) -> list[str]:
    """In the order of the network."""
    hits: set[str] = set()
    for pattern in patterns:
        parts = {name: name.split(".") for name in found}
        own = {
            name
            for name in found
            if any(fnmatchcase(".".join(parts[name][: i + 1]), pattern) for i in range(len(parts[name])))
        }
        if not own:
            raise ValueError(f"no layer is called {pattern!r}; there are {', '.join(list(found)[:5]) or 'none'}, ...")
        hits |= own
    return [name for name in found if name in hits]


def _map_sizes(network: nn.Module, images: Tensor) -> dict[str, tuple[int, ...]]:
    """The size of the maps that each convolution takes: of a transposed one, the size that it puts out."""
    sizes: dict[str, tuple[int, ...]] = {}
    hooks = []
    for path, module in network.named_modules():
        if isinstance(module, _ConvNd):

            def hook(module: Any, inputs: Any, output: Tensor, path: str = path) -> None:
                maps = output if module.transposed else inputs[0]
                size = maps.shape[-len(module.kernel_size) :]
                # Up to the next size that the stride divides, as padding makes it.
                sizes[path] = tuple(-(-side // step) * step for side, step in zip(size, module.stride, strict=True))

            hooks.append(module.register_forward_hook(hook))
    try:
        forward_passes(network, images)
    finally:
        for each in hooks:
            each.remove()
    return sizes
