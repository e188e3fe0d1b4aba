"""The penalty over a model: which weights, from which start vectors, with which gamma."""

from .module import OrthogonalityPenalty
from .paper_gamma import paper_gamma

__all__ = ["OrthogonalityPenalty", "paper_gamma"]
