"""The covariance of more features than memory holds, batch by batch, in float64."""

import torch
from torch import Tensor

from .correlation import correlation_matrix

ROWS = 8192  # of a batch that are made float64 at a time


class StreamingCovariance:
    """Mean and covariance of `(samples, dimensions)` features that come in batches.

    The batches are merged as Chan, Golub and LeVeque (1983) do, so that a large mean costs no digits. Memory holds one
    matrix `(dimensions, dimensions)` and one piece of a batch.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = torch.zeros(0, dtype=torch.float64)
        self._scatter = torch.zeros(0, 0, dtype=torch.float64)

    def update(self, features: Tensor) -> None:
        """Takes in a batch `(samples, dimensions)` of any floating dtype and device.

        Raises ValueError for another shape, or for other dimensions than those before.
        """
        if features.ndim != 2:
            raise ValueError(f"features must be a (samples, dimensions) table, got shape {tuple(features.shape)}")
        if self.count == 0:
            self._mean = torch.zeros(features.shape[1], dtype=torch.float64)
            self._scatter = torch.zeros(features.shape[1], features.shape[1], dtype=torch.float64)
        elif features.shape[1] != len(self._mean):
            raise ValueError(f"features have {features.shape[1]} dimensions, and those before had {len(self._mean)}")
        for piece in features.detach().split(ROWS):
            self._merge(piece.to("cpu", torch.float64))

    @property
    def mean(self) -> Tensor:
        """float64 `(dimensions,)`."""
        return self._mean.clone()

    def covariance(self) -> Tensor:
        """float64 `(dimensions, dimensions)`, divided by the samples less one."""
        return self._scatter / max(self.count - 1, 1)

    def correlation(self) -> Tensor:
        """float64 `(dimensions, dimensions)`; see `correlation_matrix`."""
        return correlation_matrix(self.covariance(), self._mean)

    def second_moments(self) -> Tensor:
        """float64 `(dimensions, dimensions)`: Z^T Z of the whole table Z `(samples, dimensions)`, not centered."""
        return self._scatter + self.count * self._mean.outer(self._mean)

    def eigenvalues(self) -> Tensor:
        """Those of the covariance, descending, float64 `(dimensions,)`; NaN where a feature was not finite."""
        return descending_eigenvalues(self.covariance())

    def _merge(self, piece: Tensor) -> None:
        if len(piece) == 0:
            return
        mean = piece.mean(0)
        centered = piece - mean
        shift = mean - self._mean
        total = self.count + len(piece)
        self._scatter.addmm_(centered.T, centered)
        self._scatter.addr_(shift, shift, alpha=self.count * len(piece) / total)
        self._mean += shift * (len(piece) / total)
        self.count = total


def descending_eigenvalues(covariance: Tensor) -> Tensor:
    """Eigenvalues of positive semidefinite matrices `(..., n, n)`, float64 `(..., n)` on the CPU; NaN for one that is not
    finite."""
    covariance = covariance.detach().to("cpu", torch.float64)
    finite = covariance.isfinite().all(-1).all(-1)[..., None]
    # Rounding leaves eigenvalues of -1e-19 where the matrix is singular; it has none below zero.
    values = torch.linalg.eigvalsh(covariance.where(finite[..., None], 0.0)).flip(-1).clamp(min=0)
    return values.where(finite, torch.nan)
