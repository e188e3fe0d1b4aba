"""Spectra of weights and representations, and one number for each: how many directions it really uses.

    from ortho_kernels.spectra import spectra_of
    result = spectra_of(network, images)
    print(result)

Everything is computed in float64 on the CPU, and nothing here raises because of what training produced: what holds NaN or
Inf has a spectrum of NaN.
"""

from .batch_norm import folded_weight, following_batch_norms
from .convolution_operator import operator_singular_values
from .correlation import correlation_matrix, largest_correlation
from .covariance import StreamingCovariance
from .features import FeatureSpectrum, feature_spectra
from .layer_outputs import LayerOutputs
from .lidar import lidar
from .network_spectra import NetworkSpectra, spectra_of
from .power_law import alpha_req
from .ranks import effective_rank, rankme, representation_eigenvalues, singular_values, stable_rank
from .stages import find_stages, last_layers
from .weights import WeightSpectrum, filter_eigenvalues, weight_spectra, weights_summary

__all__ = [
    "FeatureSpectrum",
    "LayerOutputs",
    "NetworkSpectra",
    "StreamingCovariance",
    "WeightSpectrum",
    "alpha_req",
    "correlation_matrix",
    "effective_rank",
    "feature_spectra",
    "filter_eigenvalues",
    "find_stages",
    "folded_weight",
    "following_batch_norms",
    "largest_correlation",
    "last_layers",
    "lidar",
    "operator_singular_values",
    "rankme",
    "representation_eigenvalues",
    "singular_values",
    "spectra_of",
    "stable_rank",
    "weight_spectra",
    "weights_summary",
]
