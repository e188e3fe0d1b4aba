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


def effective_rank(spectrum: Tensor, epsilon: float = 0.0) -> float:
    """Roy & Vetterli (2007): the exponential of the entropy of the spectrum, scaled to sum to one.

    It is n when all n singular values are equal, 1 when a single one is left, and 0 for a zero matrix. A spectrum with
    leading dimensions (one per group of a convolution) gives the mean over them. `epsilon` is added to each share, as
    RankMe and LiDAR do against the logarithm of 0; float64 needs none.
    """
    spectrum = _measurable(spectrum)
    total = spectrum.sum(-1, keepdim=True)
    share = torch.where(total == 0, 0.0, spectrum / total) + epsilon
    ranks = torch.special.entr(share).sum(-1).exp() * (total.squeeze(-1) != 0)
    return ranks.mean().item() if ranks.numel() else 0.0


def stable_rank(spectrum: Tensor) -> float:
    """||A||_F^2 / ||A||_2^2 of a matrix with these singular values (Rudelson & Vershynin 2007).

    It is n when all n singular values are equal, at least 1, and 0 for a zero matrix. Small singular values hardly count,
    so rounding does not either. A spectrum with leading dimensions gives the mean over them.
    """
    squares = _measurable(spectrum).square()
    if not squares.numel():
        return 0.0
    largest = squares.amax(-1)
    return torch.where(largest == 0, 0.0, squares.sum(-1) / largest).mean().item()


def rankme(features: Tensor, epsilon: float = 0.0) -> float:
    """RankMe (Garrido et al., ICML 2023, arXiv 2210.02885): the effective rank of a table `(samples, dimensions)`.

    The table is not centered. With p_k = sigma_k / ||sigma||_1 + epsilon it is exp(-sum p_k log p_k). The paper's epsilon
    is 1e-7, for float32; it adds about 2e-6 of the rank for every dimension.
    """
    return effective_rank(singular_values(features), epsilon)


def representation_eigenvalues(features: Tensor) -> Tensor:
    """Eigenvalues of the covariance of ``(samples, dimensions)`` features, descending; a collapse shows as zeros."""
    covariance = StreamingCovariance()
    covariance.update(features)
    return covariance.eigenvalues()


def _measurable(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64)
