"""Layers whose weight is a batch of matrices: the experts of a mixture, and linear layers that are stacked.

A weight of three dimensions does not show what it is. So transformers' classes are recognized by their names.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from .known_classes import class_names

_EXPERT_WEIGHTS = ("gate_up_proj", "gate_proj", "up_proj", "down_proj")

# Stacked linear layers: (whether each is (in, out), the attribute, the classes as FILE.CLASS).
_STACKED: tuple[tuple[bool, str, str], ...] = (
    (
        False,
        "weight",
        """granitemoe.GraniteMoeParallelExperts granitemoehybrid.GraniteMoeHybridParallelExperts
        granitemoeshared.GraniteMoeSharedParallelExperts jetmoe.JetMoeParallelExperts
        kyutai_speech_to_text.KyutaiSpeechToTextFlexibleLinear moshi.MoshiFlexibleLinear""",
    ),
    (True, "weight", "aria.AriaGroupedExpertsGemm convbert.GroupedLinearLayer csm.CsmCodebooksHead"),
    (True, "input_gate_weight", "recurrent_gemma.RecurrentGemmaRglru"),
    (True, "recurrent_gate_weight", "recurrent_gemma.RecurrentGemmaRglru"),
)
STACKED = {
    f"transformers.{name}.{attribute}": in_first for in_first, attribute, names in _STACKED for name in names.split()
}


class Batch(NamedTuple):
    """A weight of three dimensions of which the first counts matrices.

    Attributes:
        transposed: whether each matrix stands as (in, out).
    """

    transposed: bool


def known_batch(owner: nn.Module, attribute: str) -> Batch | None:
    """What a parameter of a known class is; None where it is no batch, or the class is not known."""
    for name in class_names(owner):
        key = f"{name}.{attribute}"
        if key in STACKED:
            return Batch(transposed=STACKED[key])
        if name.startswith("transformers.") and name.endswith("Experts") and attribute in _EXPERT_WEIGHTS:
            return _experts(owner)
    return None


def _experts(owner: nn.Module) -> Batch | None:
    """Experts of transformers. Versions differ in which dimension comes first, and a gated pair of weights shows it."""
    down, gate_up = owner._parameters.get("down_proj"), owner._parameters.get("gate_up_proj")
    if down is None or down.dim() != 3:
        return None
    return Batch(transposed=gate_up is not None and _stands_in_first(gate_up, down))


def _stands_in_first(gate_up: Tensor, down: Tensor) -> bool:
    """Whether `gate_up` is (E, in, 2 width) beside `down` (E, width, in): never so of (E, 2 width, in), (E, in, width)."""
    return gate_up.dim() == 3 and gate_up.shape[2] == 2 * down.shape[1] and gate_up.shape[1] == down.shape[2]
