"""Does orthogonality of the weights carry to the features? Their covariance, layer by layer.

Proposition 1 of the paper (arXiv 2411.00392): if W W^T = I and Cov(x) = I, then Cov(W x) = I. Of any x, Cov(W x) is
W Cov(x) W^T. So it depends on x, which is what a norm, an activation or a sum with a shortcut has left.
"""

from .inputs import INPUTS, Inputs
from .measurement import Measurement, measure
from .orthogonal_weights import optimize_, orthogonalize_
from .residual_norms import ResidualNorms, residual_norms
from .whiteness import Whiteness, whiteness
from .whitening import Whitening
from .whole_network import Propagation, PropagationSettings, propagate

__all__ = [
    "INPUTS",
    "Inputs",
    "Measurement",
    "Propagation",
    "PropagationSettings",
    "ResidualNorms",
    "Whiteness",
    "Whitening",
    "measure",
    "optimize_",
    "orthogonalize_",
    "propagate",
    "residual_norms",
    "whiteness",
]
