"""The figures of reports and live pages, as markup that goes into the page: no matplotlib until one is drawn."""

from .correlations import correlation_maps
from .curves import live_curve, running_scores, training_curves
from .gammas import score_against_gamma
from .illustrations import illustrations
from .layers import layer_residuals, weight_spectra
from .spectra import representation_spectra, stage_spectra

__all__ = [
    "correlation_maps",
    "illustrations",
    "layer_residuals",
    "live_curve",
    "representation_spectra",
    "running_scores",
    "score_against_gamma",
    "stage_spectra",
    "training_curves",
    "weight_spectra",
]
