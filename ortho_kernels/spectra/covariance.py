"""The covariance of more features than memory holds, batch by batch, in float64."""

import torch
from torch import Tensor

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

    def eigenvalues(self) -> Tensor:
        """Those of the covariance, descending, float64 `(dimensions,)`; NaN where a feature was not finite."""
        if not self._scatter.isfinite().all():
            return self._mean.new_full(self._mean.shape, torch.nan)
        # Rounding leaves eigenvalues of -1e-19 where the covariance is singular; it has none below zero.
        return torch.linalg.eigvalsh(self.covariance()).flip(0).clamp(min=0)

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
