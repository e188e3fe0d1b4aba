"""Weights that a module computes from its parameters: parametrizations, and the hooks of `torch.nn.utils` before them."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ..weight_checks import check_storage, is_sharded


def computed_weights(module: nn.Module) -> dict[str, list[Tensor]]:
    """The attributes that a module computes, each with the parameters from which it does."""
    computed: dict[str, list[Tensor]] = {}
    if parametrize.is_parametrized(module):
        for name, parametrization in module.parametrizations.items():  # type: ignore[operator, union-attr]
            computed[name] = list(parametrization._parameters.values())
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            computed[hook.name] = [getattr(module, f"{hook.name}_{part}") for part in "gv"]
        elif isinstance(hook, SpectralNorm):
            computed[hook.name] = [getattr(module, f"{hook.name}_orig")]
        elif isinstance(hook, BasePruningMethod):
            computed[hook._tensor_name] = [getattr(module, f"{hook._tensor_name}_orig")]
    return computed


def trained_sources(module: nn.Module, attribute: str) -> list[nn.Parameter]:
    """The parameters to which a computed weight passes its gradient, those of its parametrizations among them."""
    sources: list[Any] = computed_weights(module).get(attribute, [])
    if parametrize.is_parametrized(module, attribute):
        sources = [*module.parametrizations[attribute].parameters()]  # type: ignore[index, union-attr]
    return [source for source in sources if source.requires_grad]


def compute_weight(module: nn.Module, attribute: str, replaced: Container[int] = ()) -> Tensor | None:
    """The weight from its parameters as they are now; None where a module has none of that name.

    No parametrization runs in training mode: the weight is the one that the last forward pass used, and no power iteration
    moves. A hook computes it before each forward pass alone: its attribute is stale once the optimizer has stepped, and
    its graph is gone once the loss went backward.

    Raises:
        RuntimeError: where the parameters are without storage, or sharded, also where they are `replaced` by gathered ones.
    """
    sources = computed_weights(module).get(attribute, [])
    name = f"a parameter of which {attribute} of {type(module).__name__} is computed"
    if any(is_sharded(source) or id(source) in replaced for source in sources):
        raise RuntimeError(
            f"{name} is sharded: torch doesn't compute it from its parts; `exclude` leaves the weight out"
        )
    check_storage(sources, [name for _ in sources])
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm) and hook.name == attribute:
            return hook.compute_weight(module)
        if isinstance(hook, SpectralNorm) and hook.name == attribute:
            return hook.compute_weight(module, do_power_iteration=False)
        if isinstance(hook, BasePruningMethod) and hook._tensor_name == attribute:
            return hook.apply_mask(module)
    if torch.compiler.is_compiling():
        return getattr(module, attribute)
    with unmoved(module):
        return getattr(module, attribute, None)


@contextmanager
def unmoved(encoder: nn.Module) -> Iterator[None]:
    """Within it, no parametrization is in training mode: looking at a weight moves no power iteration."""
    moving = [
        part
        for module in encoder.modules()
        if isinstance(module, parametrize.ParametrizationList)
        for part in module.modules()
        if part.training
    ]
    for part in moving:
        part.training = False
    try:
        yield
    finally:
        for part in moving:
            part.training = True
