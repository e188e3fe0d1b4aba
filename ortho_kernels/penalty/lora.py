"""`LoraPenalty`: soft orthogonality of the products of LoRA's factors, as a module.

It is no option of `OrthogonalityPenalty`, where every value belongs to one weight: here it belongs to two, or three.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..distributed.fsdp import Shards, explained
from ..gradients import check_scale
from ..low_rank import low_rank_values
from ..weight_checks import is_number
from .adapters import find_adapters
from .gradient_scaling import scale_factor
from .module_tree import ModuleTree
from .selection import Selector
from .words import abridged, described, shown


class LoraPenalty(nn.Module):
    """`gamma * sum of SO(scale B A)` over the LoRA adapters of a model, of which no product is formed.

    scale B A is what an adapter adds to the weight of its layer, and its value is that of `low_rank_soft_orthogonality`:
    zero where all r singular values of the product are 1. Add `penalty()` to the loss once an optimizer step. Adapters that
    come or go are followed, and so are those that are in training now (PEFT's `set_adapter`).

    LoRA starts with B = 0, where SO has no gradient: the loss moves B first.

    Args:
        model: holds the adapters: PEFT's LoRA, DoRA and AdaLoRA, or any layer with `lora_A` and `lora_B`; `scaling` of the
            layer is the scale, 1 where it has none. DoRA's magnitudes are no part of the product; AdaLoRA's singular
            values are, and get gradients. Adapters are covered of which a factor requires a gradient.
        gamma: the factor, a finite number: an attribute, which may be set at each step. No paper gives one for products.
            Tensors, schedules, patterns, `every`, `hold` and `step_` are `OrthogonalityPenalty`'s alone.
        include, exclude: as in `OrthogonalityPenalty`, matched against the factors.

    Attributes:
        names: the covered adapters, by the names of their lora_A.
        uncovered: the reason against every other parameter of two or more dimensions, by name.

    Raises:
        TypeError, ValueError: naming the factor and what was expected; for a model without an adapter in training.
    """

    def __init__(self, model: nn.Module, *, gamma: float, include: Any = None, exclude: Any = None) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be an nn.Module; got a {type(model).__name__}")
        if not is_number(gamma):
            raise ValueError(
                f"gamma must be a finite number; got {shown(gamma)}. LoraPenalty takes nothing else: to change it over "
                "time, set penalty.gamma at each step"
            )
        self.gamma = gamma
        self._referred = (model,)  # in a tuple, lest it be registered
        try:
            self._selector = Selector(model, include, exclude, lora="factors")
            self._select(again=False)
        except ValueError as error:
            raise explained(error, model) from None
        with torch.no_grad():
            self._values()  # shapes, dtypes and devices are checked

    def refresh(self) -> None:
        """Selects the adapters anew, as is done by itself when modules or parameters came or went.

        Raises:
            ValueError: where none is left.
        """
        try:
            self._select(again=True)
        except ValueError as error:
            raise ValueError(f"the model has changed: {error}") from None

    @torch.jit.unused
    def forward(self) -> Tensor:
        """The differentiable scalar, float32 (float64 where a factor is float64)."""
        return self.gamma * self._values().sum()

    def accumulate_gradients(self, scale: float = 1.0, *, scaler: torch.amp.GradScaler | None = None) -> Tensor:
        """Adds `scale` times the gradient to `.grad`, by a backward of its own that hooks see, and returns the value.

        To be called between the loss's backward and the optimizer's step. With a GradScaler, after `unscale_`, or before it
        with `scaler=scaler`.

        Returns:
            The detached scalar `gamma * sum of SO(scale B A)`, without `scale`.

        Raises:
            RuntimeError: where a scaler is given whose gradients are unscaled already.
        """
        check_scale(scale)
        with torch.enable_grad():
            value = self()
            if value.requires_grad:
                (scale * scale_factor(scaler, value.device) * value).backward()
        return value.detach()

    def extra_repr(self) -> str:
        covered = f"gamma={self.gamma:g}\ncovers {len(self.names)} adapters: {abridged(self.names)}"
        return covered + (f"\nnot {len(self.uncovered)}: {described(self.uncovered)}" if self.uncovered else "")

    def _select(self, *, again: bool) -> None:
        [model] = self._referred
        covered, self.uncovered, factors = self._selector.select(again=again)
        self._adapters = find_adapters(weight.site for weight in covered if weight.site.filter_groups == 1)
        self.names = tuple(A.name for _, A in self._adapters)
        paired = {factor.name for adapter in self._adapters for factor in adapter}
        for site in (weight.site for weight in covered if weight.site.name not in paired):
            alone = "factor whose other factor is not covered"
            self.uncovered[site.name] = (
                alone if site.filter_groups == 1 else "factor of a grouped convolution's adapter"
            )
        if not paired:
            raise ValueError(f"the model has no pair of lora_A and lora_B to penalize: {described(self.uncovered)}")
        self._tree, self._shards = ModuleTree(model, factors), Shards(model)

    def _values(self) -> Tensor:
        """One value an adapter."""
        compiling = torch.compiler.is_compiling()
        if not compiling and self._tree.has_changed():
            self.refresh()
        replaced = {} if compiling else self._shards.replaced()
        products = [(B.weight(replaced), A.weight(replaced)) for B, A in self._adapters]
        scales = [adapter.scale() for adapter in self._adapters]
        return low_rank_values(products, scales, [(B.name, A.name) for B, A in self._adapters])
