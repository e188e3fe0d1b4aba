"""LiDAR: how many directions of a representation tell pictures apart, whatever view of them is seen."""

import math

import torch
from torch import Tensor

from .ranks import effective_rank


def lidar(features: Tensor, delta: float = 1e-4, epsilon: float = 0.0) -> float:
    """LiDAR (Thilak et al., ICLR 2024, arXiv 2312.04000): the effective rank of linear discriminant analysis.

    Each picture is a class, and its augmented views are the samples of that class. With the covariance between the means
    of the classes, S_b, and that within classes, S_w + delta I, it is exp(-sum p_i log p_i), where
    p_i = lambda_i / ||lambda||_1 + epsilon and lambda are the eigenvalues of S_w^-1/2 S_b S_w^-1/2. Both covariances are
    unbiased: they are divided by pictures - 1, and by pictures (views - 1).

    It is at most the lesser of dimensions and pictures - 1. Directions that tell nothing apart keep an eigenvalue of about
    1 / views, so values compare at one number of views alone. The paper takes 1000 pictures and 50 views.

    Args:
        features: `(pictures, views, dimensions)`, of any floating dtype and device.
        delta: what is added to S_w. It is absolute: it counts where the views of a picture differ by less than its root.
            1e-4 is that of Skean et al. (2025); the paper only says that it is small.
        epsilon: added to each share; the paper's small constant, which float64 can do without.

    Returns:
        The rank; 0 where all pictures have one mean; NaN where a feature is not finite, for one picture or for one view.

    Raises:
        ValueError: for features of another shape, or delta that is not above 0.
    """
    if features.ndim != 3:
        raise ValueError(f"features must be (pictures, views, dimensions), got shape {tuple(features.shape)}")
    if not 0 < delta < math.inf:
        raise ValueError(f"delta must be above 0, got {delta}")
    pictures, views, dimensions = features.shape
    if pictures < 2 or views < 2 or dimensions < 1 or not features.isfinite().all():
        return math.nan
    features = features.detach().to("cpu", torch.float64)
    means = features.mean(1)
    between = (means - means.mean(0)) / math.sqrt(pictures - 1)
    within = (features - means[:, None]).flatten(0, 1) / math.sqrt(pictures * (views - 1))
    variances, directions = torch.linalg.eigh(within.T @ within)
    whitened = between @ directions / (variances.clamp(min=0) + delta).sqrt()
    return effective_rank(torch.linalg.eigvalsh(whitened.T @ whitened).clamp(min=0), epsilon)
