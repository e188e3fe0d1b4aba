"""The penalty over a model: which weights, from which start vectors, with which gamma."""

from .lora import LoraPenalty
from .module import OrthogonalityPenalty
from .paper_gamma import paper_gamma

__all__ = ["LoraPenalty", "OrthogonalityPenalty", "paper_gamma"]
