"""The spectrum of a matrix, and one number for it: how many directions it really uses."""

import torch
from torch import Tensor

from .covariance import StreamingCovariance


def singular_values(matrix: Tensor) -> Tensor:
    """The singular values of ``(..., rows, cols)`` in descending order, shape ``(..., min(rows, cols))``."""
    matrix = _measurable(matrix)
    finite = matrix.isfinite().all(-1).all(-1)[..., None]
    values = torch.linalg.svdvals(matrix.where(finite[..., None], 0.0))
    return values.where(finite, torch.nan)


def effective_rank(spectrum: Tensor) -> float:
    """Roy & Vetterli (2007): the exponential of the entropy of the spectrum, scaled to sum to one.

    It is n when all n singular values are equal, 1 when a single one is left, and 0 for a zero matrix. A spectrum with
    leading dimensions (one per group of a convolution) gives the mean over them.
    """
    spectrum = spectrum.detach().to("cpu", torch.float64)
    total = spectrum.sum(-1, keepdim=True)
    share = torch.where(total == 0, 0.0, spectrum / total)
    ranks = torch.special.entr(share).sum(-1).exp() * (total.squeeze(-1) != 0)
    return ranks.mean().item() if ranks.numel() else 0.0


def rankme(features: Tensor) -> float:
    """RankMe (Garrido et al. 2023): the effective rank of a table of features, one row a sample, not centered."""
    return effective_rank(singular_values(features))


def representation_eigenvalues(features: Tensor) -> Tensor:
    """Eigenvalues of the covariance of ``(samples, dimensions)`` features, descending; a collapse shows as zeros."""
    covariance = StreamingCovariance()
    covariance.update(features)
    return covariance.eigenvalues()


def _measurable(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64)
