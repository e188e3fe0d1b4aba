"""Which dimensions of a representation say the same."""

import math

import torch
from torch import Tensor

CONSTANT = 1e-9  # standard deviation, relative to the mean, below which a float32 feature can only be rounding


def correlation_matrix(covariance: Tensor, mean: Tensor) -> Tensor:
    """Correlations `(dimensions, dimensions)`, float64 within [-1, 1], of features with this covariance and mean.

    Rows and columns of a feature that does not vary are NaN, as in numpy; all are where the covariance is not finite.
    """
    covariance, mean = (each.detach().to("cpu", torch.float64) for each in (covariance, mean))
    if not covariance.isfinite().all():
        return torch.full_like(covariance, torch.nan)
    deviation = covariance.diagonal().sqrt()
    constant = deviation <= CONSTANT * mean.abs()
    correlation = (covariance / deviation[:, None] / deviation).clamp(-1, 1)
    return correlation.masked_fill(constant[:, None] | constant, torch.nan)


def largest_correlation(correlation: Tensor) -> float:
    """The largest absolute correlation of two different features, in [0, 1]: 1 where one repeats another.

    Takes a correlation matrix; features that do not vary are left out. NaN where fewer than two vary.
    """
    others = ~torch.eye(len(correlation), dtype=torch.bool) & ~correlation.isnan()
    values = correlation[others].abs()
    return values.max().item() if len(values) else math.nan


def thinned(matrix: Tensor, most: int) -> Tensor:
    """At most `most` rows and columns of a square matrix, evenly chosen, the first and the last among them."""
    size = len(matrix)
    if size <= most:
        return matrix
    kept = torch.linspace(0, size - 1, most, dtype=torch.float64).round().long()
    return matrix[kept][:, kept]
