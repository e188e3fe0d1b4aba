"""LoRA's adapters in a model: which weights are their factors.

A factor is known by its name: a component of it is `lora_A`, `lora_B`, `lora_embedding_A` or `lora_embedding_B`, as in PEFT
(LoRA, DoRA and AdaLoRA) and in Microsoft's loralib. The names of an adapter's two factors differ in that letter alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..distributed.full import full_tensors
from ..low_rank import Scale
from .computed_weights import compute_weight
from .weight_sites import Site

_FACTOR = re.compile(r"(.*\.)?(lora_(?:embedding_)?)([AB])(\..*)?")
FROZEN = "factor of a frozen LoRA adapter"


class Factor(NamedTuple):
    """A weight that is a factor of an adapter, as its name says."""

    name: str
    letter: str  # A or B
    adapter: str  # the name without the letter
    owner: nn.Module
    attribute: str
    layer: nn.Module  # which has the factor as `lora_A`, or a dictionary in which it is
    key: str  # the adapter's name in that dictionary; empty where there is none

    def weight(self, replaced: dict[int, Tensor]) -> Tensor:
        """As it stands now, or what it is replaced by."""
        weight: Tensor | None = self.owner._parameters.get(self.attribute)
        if weight is None:
            weight = compute_weight(self.owner, self.attribute, replaced)
        if weight is None:
            raise RuntimeError(f"{self.name} was taken away, which no module shows: call refresh()")
        return replaced.get(id(weight), weight)


class Adapter(NamedTuple):
    """The factors of B A, or B diag(E) A."""

    B: Factor
    A: Factor

    def scale(self) -> Scale:
        """The layer's `scaling`; of AdaLoRA the diagonal of its lora_E times `scaling / (ranknum + 1e-5)`."""
        scaling, E = self._held("scaling", 1.0), self._held("lora_E", None)
        if E is None:
            return scaling
        E, ranknum = full_tensors([E, self._held("ranknum", None)])
        return E.flatten().double() * (scaling / (ranknum + 1e-5))

    def _held(self, attribute: str, default: Any) -> Any:
        """What the layer holds of this adapter under a name, as it is or in a dictionary."""
        held = getattr(self.A.layer, attribute, default)
        return held[self.A.key] if self.A.key and held is not default else held


def as_factor(site: Site) -> Factor | None:
    """What a site is to an adapter; None where its name is no factor's."""
    match = _FACTOR.fullmatch(site.name)
    if match is None:
        return None
    before, stem, letter, after = (part or "" for part in match.groups())
    layer = site.modules[before.count(".")]
    in_dictionary = isinstance(getattr(layer, stem + letter), nn.ModuleDict | nn.ParameterDict)
    key = after.split(".")[1] if in_dictionary else ""
    return Factor(site.name, letter, f"{before}{stem}*{after}", site.owner, site.attribute, layer, key)


def find_adapters(sites: Iterable[Site]) -> list[Adapter]:
    """The adapters of which both factors are among the sites."""
    found: dict[str, dict[str, Factor]] = {"A": {}, "B": {}}
    for factor in filter(None, map(as_factor, sites)):
        found[factor.letter][factor.adapter] = factor
    return [Adapter(found["B"][name], A) for name, A in found["A"].items() if name in found["B"]]


def reasons_against(sites: Iterable[Site]) -> dict[str, str]:
    """Of every site but the factors of adapters in training, why it is none. One trained factor makes both count."""
    factors = [(site, as_factor(site)) for site in sites]
    trained = {factor.adapter for site, factor in factors if factor is not None and site.weight.requires_grad}
    reasons = {}
    for site, factor in factors:
        if factor is None:
            diagonal = "lora_E" in site.name.split(".")
            reasons[site.name] = "singular values of an AdaLoRA adapter" if diagonal else "no factor of a LoRA adapter"
        elif (experts := getattr(factor.layer, "num_experts", 1)) > 1:
            reasons[site.name] = f"factor of the LoRA adapters of {experts} experts, side by side in one matrix"
        elif site.weight.dim() > 2 and not site.is_layer:
            reasons[site.name] = site.reason()
        elif factor.adapter not in trained:
            reasons[site.name] = FROZEN
    return reasons


def no_adapter(uncovered: dict[str, str]) -> str:
    """In words, that there is no adapter in training."""
    if FROZEN in uncovered.values():
        return "the encoder's LoRA adapters are all frozen; train one first (in PEFT: model.set_adapter)"
    return "the encoder has no LoRA adapter, no weights named lora_A and lora_B; add one first (peft.get_peft_model)"
