"""Spectra of weights and representations, and one number for each: how many directions it really uses.

Everything is computed in float64 on the CPU, and nothing here raises because of what training produced: what holds NaN or
Inf has a spectrum of NaN.
"""

from .covariance import StreamingCovariance
from .layer_outputs import LayerOutputs
from .ranks import effective_rank, rankme, representation_eigenvalues, singular_values

__all__ = [
    "LayerOutputs",
    "StreamingCovariance",
    "effective_rank",
    "rankme",
    "representation_eigenvalues",
    "singular_values",
]
