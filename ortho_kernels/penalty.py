"""`OrthogonalityPenalty`: the penalty over a model's conv and linear weights, as a module."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from . import functional
from .distributed import whole
from .matrix_view import MatrixView, check_weights, matrix_view
from .penalty_report import LayerReport, PenaltyReport
from .selection import abridged, choose_weights
from .warm_start import WarmStart

PAPER_GAMMA = {"so": 1e-6, "srip": 1e-4}
_OPTIONS = {
    "so": {"side", "diagonal", "off_diagonal", "squared"},
    "srip": {"side", "iterations", "generator", "gradient", "squared", "warm_start"},
}


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
        self._function([], **options)  # what doesn't fit fails here, not in the first step
        weights, views = self._weights_and_views()
        self.warm: WarmStart | None = None
        if warm_start:
            if options.get("generator") is not None:
                raise ValueError(
                    "warm_start keeps its vectors, so a generator has nothing to draw: give one of the two"
                )
            self.warm = WarmStart(weights, views, self.side)

    @property
    def encoder(self) -> nn.Module:
        return self._referred[0]

    @property
    def _function(self) -> Callable[..., Tensor]:
        return functional.soft_orthogonality if self.kind == "so" else functional.srip

    @property
    def side(self) -> str:
        return self.options.get("side", "small")

    def weights(self) -> list[tuple[str, Tensor, int]]:
        """`(name, weight, groups)` of everything the penalty covers, as it stands now."""
        found = []
        for name in self.names:
            owner_name, _, attribute = name.rpartition(".")
            owner = self.encoder.get_submodule(owner_name)
            found.append((name, getattr(owner, attribute), getattr(owner, "groups", 1)))
        return found

    def penalty(self) -> Tensor:
        """The differentiable scalar `gamma * sum of penalty(W)`, float32 (float64 where a weight is float64)."""
        weights, views = self._weights_and_views()
        if self.warm is None:
            return self.gamma * self._function(weights, groups=[view.groups for view in views], **self.options)
        iterations, gradient = self.options.get("iterations", 2), self.options.get("gradient", "through")
        sigma = self.warm.sigma(weights, views, self.side, iterations, gradient)
        return self.gamma * (sigma.square() if self.options.get("squared", False) else sigma).sum()

    def forward(self) -> Tensor:
        return self.penalty()

    def report(self) -> PenaltyReport:
        """Every layer's value and spectrum (takes an SVD of each); non-finite layers are named, not skipped.

        SRIP's values start from vectors of a fixed seed, so that looking changes nothing, the random state included.
        """
        weights, views = self._weights_and_views()
        groups = [view.groups for view in views]
        options = dict(self.options)
        if self.kind == "srip":
            options["generator"] = torch.Generator().manual_seed(0)
        with torch.no_grad():
            values = self._function(weights, groups=groups, reduction="none", **options).split(groups)
        layers = zip(self.names, weights, views, values, strict=True)
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

    def _weights_and_views(self) -> tuple[list[Tensor], list[MatrixView]]:
        names, parts, groups = zip(*self.weights(), strict=True)
        weights = [whole(part) for part in parts]
        check_weights(weights, groups, names)
        return weights, [matrix_view(weight, count) for weight, count in zip(weights, groups, strict=True)]
