"""How far features are from white: numbers of a covariance's eigenvalues."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ortho_kernels.spectra import effective_rank

KEPT = 64  # eigenvalues that a file keeps of each covariance


@dataclass(frozen=True)
class Whiteness:
    """Of a covariance C of d dimensions, m the mean of its diagonal. None of it depends on the features' scale.

    NaN where the features do not vary, or are not finite.
    """

    dimensions: int
    samples: int
    distance: float  # |C / m - I|_F / sqrt(d), the spread of the eigenvalues over their mean: 0 (white) to sqrt(d - 1)
    floor: float  # the distance that as many samples of white features have by chance
    rank_share: float  # effective rank / d: 1 (white) to 1 / d
    first_share: float  # the largest eigenvalue's share of their sum: 1 / d (white) to 1
    eigenvalues: list[float]  # over the largest, descending: all, or KEPT evenly chosen


def whiteness(eigenvalues: Tensor, samples: int) -> Whiteness:
    """Takes the eigenvalues `(d,)` in descending order, and the number of samples behind them."""
    dimensions, mean = len(eigenvalues), eigenvalues.mean()
    shares = eigenvalues / mean if mean > 0 else torch.full_like(eigenvalues, torch.nan)
    chosen = torch.linspace(0, dimensions - 1, min(dimensions, KEPT)).round().long()
    return Whiteness(
        dimensions,
        samples,
        distance=(shares - 1).square().mean().sqrt().item(),
        floor=math.sqrt(dimensions / max(samples - 1, 1)),
        rank_share=effective_rank(shares) / dimensions,
        first_share=(shares[0] / dimensions).item(),
        eigenvalues=(shares / shares[0])[chosen].tolist(),
    )
