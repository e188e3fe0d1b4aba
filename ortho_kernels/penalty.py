"""`OrthogonalityPenalty`: the penalty over a model's conv and linear weights, as a module."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from . import functional
from .distributed import whole
from .penalty_report import LayerReport, PenaltyReport
from .plan import Plan, plan_of
from .selection import abridged, choose_weights, fused_projections
from .value_and_grad import soft_orthogonality_values_and_gradients, srip_values_and_gradients
from .warm_start import WarmStart

PAPER_GAMMA = {"so": 1e-6, "srip": 1e-4}
_OPTIONS = {
    "so": {"side", "diagonal", "off_diagonal", "squared"},
    "srip": {"side", "iterations", "generator", "gradient", "squared", "warm_start"},
}
_SRIP_DEFAULTS = {"side": "small", "iterations": 2, "gradient": "through", "squared": False}


class OrthogonalityPenalty(nn.Module):
    """`gamma * sum of penalty(W)` over the conv and linear weights of an encoder (arXiv 2411.00392).

    Add `penalty()` to the loss once an optimizer step. The penalty refers to the encoder without owning it: it has no
    parameters of its own, nothing in a checkpoint appears twice, and weights are looked up when it is computed, so that it
    follows `.to()`, parametrizations and `torch.func.functional_call` of the model. A weight that two layers share counts
    once.

    Args:
        encoder: the module whose weights are penalized: every `nn.Conv*d`, `nn.ConvTranspose*d`, `nn.Linear` and the
            projections of `nn.MultiheadAttention`; no norm, bias or embedding.
        kind: `"so"` or `"srip"`, see `soft_orthogonality` and `srip`.
        gamma: the factor; the paper's 1e-6 (SO) or 1e-4 (SRIP) by default. An attribute: change it to schedule it.
        include: patterns (as in a shell, `"layer4.*"`) of parameter names to cover; all by default.
        exclude: patterns of parameter names to leave out.
        split_qkv: a transformer's fused query, key and value projection counts as three matrices instead of one.
        options: further keyword arguments of the function of that kind (`side`, `iterations`, `gradient`, ...); and for
            SRIP `warm_start=True`: each step starts from the vectors of the step before.

    Raises:
        ValueError: for an unknown kind or option, a pattern that matches nothing, an encoder with nothing to penalize.
    """

    def __init__(
        self,
        encoder: nn.Module,
        kind: str = "so",
        *,
        gamma: float | None = None,
        include: str | Iterable[str] | None = None,
        exclude: str | Iterable[str] | None = None,
        split_qkv: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        if not isinstance(encoder, nn.Module):
            raise TypeError(f"encoder must be an nn.Module; got a {type(encoder).__name__}")
        if kind not in tuple(_OPTIONS):
            raise ValueError(f"kind must be one of {', '.join(map(repr, _OPTIONS))}; got {kind!r}")
        for option in options:
            if option not in _OPTIONS[kind]:
                raise TypeError(f"{kind!r} has no option {option!r}; it has {', '.join(sorted(_OPTIONS[kind]))}")
        self.kind = kind
        self.gamma = PAPER_GAMMA[kind] if gamma is None else gamma
        if not isinstance(self.gamma, (int, float)) or not math.isfinite(self.gamma):
            raise ValueError(f"gamma must be a finite number; got {self.gamma!r}")
        warm_start = options.pop("warm_start", False)
        self.options = options
        # In a tuple, lest it be registered: a module reached by two paths is not put back by functional_call.
        self._referred = (encoder,)
        self.names = choose_weights(encoder, include, exclude)
        self._paths = [(tuple(path), attribute) for *path, attribute in (name.split(".") for name in self.names)]
        self._blocks = [1] * len(self.names)  # matrices that lie one above the other in each weight
        if split_qkv:
            self._blocks = [fused_projections(weight, name) for name, weight, _ in self.weights()]
            if set(self._blocks) == {1}:
                raise ValueError(
                    "split_qkv needs a fused query, key and value projection (qkv.weight, in_proj_weight) among the "
                    f"weights: {abridged(self.names)}"
                )
        self._function([], **options)  # what doesn't fit fails here, not in the first step
        weights, plan = self._weights_and_plan()
        self.warm: WarmStart | None = None
        if warm_start:
            if options.get("generator") is not None:
                raise ValueError(
                    "warm_start keeps its vectors, so a generator has nothing to draw: give one of the two"
                )
            self.warm = WarmStart(weights, plan, options.get("side", "small"))

    @property
    def encoder(self) -> nn.Module:
        return self._referred[0]

    @property
    def _function(self) -> Callable[..., Tensor]:
        return functional.soft_orthogonality if self.kind == "so" else functional.srip

    def weights(self) -> list[tuple[str, Tensor, int]]:
        """`(name, weight, groups)` of everything the penalty covers, as it stands now."""
        return list(zip(self.names, *self._weights_and_groups(), strict=True))

    def penalty(self) -> Tensor:
        """The differentiable scalar `gamma * sum of penalty(W)`, float32 (float64 where a weight is float64)."""
        weights, plan = self._weights_and_plan()
        if self.kind == "so":
            values = functional.soft_orthogonality_values(weights, plan, **self.options)
        elif self.warm is not None:
            values = self.warm.values(weights, plan, self._srip_options)
        else:
            values, _ = functional.srip_values(weights, plan, self._fresh_start(weights, plan), **self._srip_options)
        return self.gamma * values.sum()

    def accumulate_gradients(self, scale: float = 1.0) -> Tensor:
        """Adds `scale` times the gradient of `penalty()` to the weights' `.grad`, in place, and tells its value.

        To be called between the loss's backward and the optimizer's step, where it does as `(scale * penalty()).backward()`
        does, without a graph and with nothing allocated: `.grad` is added to while it is computed. Hooks on parameters don't
        see what is added. Weights that are frozen get none, weights that are computed (parametrizations) pass theirs on.

        Returns:
            The detached scalar `gamma * sum of penalty(W)`, without `scale`.
        """
        with torch.enable_grad():  # for parametrizations
            weights, plan = self._weights_and_plan()
        gradients: list[Tensor | None] = []
        for weight in weights:
            if not weight.requires_grad:
                gradients.append(None)
            elif weight.is_leaf:
                if weight.grad is None:
                    weight.grad = torch.zeros_like(weight, requires_grad=False)
                gradients.append(weight.grad)
            else:
                gradients.append(torch.zeros_like(weight, requires_grad=False))
        factor = float(scale * self.gamma)
        if self.kind == "so":
            values = soft_orthogonality_values_and_gradients(weights, plan, gradients, factor, True, **self.options)
        elif self.warm is not None:
            values = self.warm.values_and_gradients(weights, plan, gradients, factor, self._srip_options)
        else:
            start = self._fresh_start(weights, plan)
            values, _ = srip_values_and_gradients(weights, plan, start, gradients, factor, True, **self._srip_options)
        computed = {w: g for w, g in zip(weights, gradients, strict=True) if g is not None and not w.is_leaf}
        if computed:
            torch.autograd.backward(list(computed), list(computed.values()))
        return self.gamma * values.sum()

    def forward(self) -> Tensor:
        return self.penalty()

    def report(self) -> PenaltyReport:
        """Every layer's value and spectrum (takes an SVD of each); non-finite layers are named, not skipped.

        SRIP's values start from vectors of a fixed seed, so that looking changes nothing, the random state included.
        """
        weights, plan = self._weights_and_plan()
        options = dict(self.options)
        if self.kind == "srip":
            options["generator"] = torch.Generator().manual_seed(0)
        with torch.no_grad():
            values = self._function(weights, groups=plan.groups, reduction="none", **options).split(plan.groups)
        layers = zip(self.names, weights, plan.views, values, strict=True)
        return PenaltyReport(self.kind, self.gamma, [LayerReport.of(*layer) for layer in layers])

    def extra_repr(self) -> str:
        weights = self.weights()
        entries = sum(weight.numel() for _, weight, _ in weights)
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        warm = ", warm_start=True" if self.warm is not None else ""
        return (
            f"kind={self.kind!r}, gamma={self.gamma:g}{options}{warm}\n"
            f"covers {len(weights)} weights, {entries:,} entries: {abridged(self.names)}"
        )

    @property
    def _srip_options(self) -> dict[str, Any]:
        return _SRIP_DEFAULTS | {name: value for name, value in self.options.items() if name != "generator"}

    def _fresh_start(self, weights: list[Tensor], plan: Plan) -> Tensor:
        return functional.pack_start(
            None, weights, plan, self.options.get("side", "small"), self.options.get("generator")
        )

    def _weights_and_groups(self) -> tuple[list[Tensor], list[int]]:
        weights, groups = [], []
        for (path, attribute), blocks in zip(self._paths, self._blocks, strict=True):
            owner: Any = self._referred[0]
            for part in path:  # as get_submodule does, at a tenth of its cost
                owner = owner._modules[part]
            weight = owner._parameters.get(attribute)
            weights.append(getattr(owner, attribute) if weight is None else weight)
            groups.append(blocks * owner.__dict__.get("groups", 1))
        return weights, groups

    def _weights_and_plan(self) -> tuple[list[Tensor], Plan]:
        parts, groups = self._weights_and_groups()
        weights = [whole(part) for part in parts]
        return weights, plan_of(weights, groups, self.names)
