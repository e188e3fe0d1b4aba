"""The extreme eigenvalues of W W^T, estimated by one power iteration each, as ABD-Net does. The Gram is never formed.

TAMU-VITA/ABD-Net at 502305e, torchreid/regularizers/SVMO.py:20-56 and losses/of_penalty.py:26-50 (Chen et al., ICCV 2019).
"""

from __future__ import annotations

import torch
from torch import Tensor


def extreme_eigenvalues(W: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """The largest and the smallest eigenvalue of G = W W^T, of every `(n, k)` matrix of W, differentiable.

    With the vectors x and x' of `start`, `(..., n, 2)`: y = G x gives largest = |W^T y|^2 / |y|^2, its Rayleigh quotient.
    z = (G - largest I) x' gives smallest = |W^T z|^2 / |z|^2, and largest where z is zero; of a zero matrix both are 0.
    Both are float64, computed in float64: near orthogonality their difference has no digits in float32.
    """
    W, start = W.double(), start.detach().double()
    y, y2 = (W @ (W.mT @ start)).unbind(-1)
    largest = _rayleigh_quotient(W, y, torch.zeros_like(y[..., 0]))
    z = y2 - largest[..., None] * start[..., 1]
    return largest, _rayleigh_quotient(W, z, largest)


def _rayleigh_quotient(W: Tensor, y: Tensor, of_zero: Tensor) -> Tensor:
    """y^T W W^T y / y^T y; `of_zero` for a zero vector."""
    squared = y.square().sum(-1)
    zero = squared == 0
    product = (W.mT @ y[..., None]).square().sum((-1, -2))
    return torch.where(zero, of_zero, product / torch.where(zero, 1, squared))
