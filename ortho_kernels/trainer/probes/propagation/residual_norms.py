"""How far a weight is from orthogonal: the exact norms of R = W W^T - I, and what SRIP makes of its spectral norm."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ortho_kernels import reference, srip


@dataclass(frozen=True)
class ResidualNorms:
    """Of one weight; of its groups, or batch, the largest sigma."""

    layer: str
    so_per_row: float  # SO over the order of R: |R|_F^2 / n
    sigma: float  # the spectral norm of R, by the eigenvalues of R in float64
    estimates: list[float]  # SRIP's sigma from fresh vectors, one each
    warm: float | None  # SRIP's sigma from the vectors that a run with penalty.warm_start=true ended with


def residual_norms(
    layer: str,
    weight: Tensor,
    groups: int,
    starts: Sequence[Tensor],
    warm: Tensor | None = None,
    iterations: int = 2,
) -> ResidualNorms:
    """Of a weight `(out, ...)`, and for each of the start vectors `(groups, n)`."""
    weight = weight.detach().cpu()
    residuals = [reference.residual(matrix, "small") for matrix in reference.matrices([weight.double()], groups)]
    sigmas = torch.stack([torch.linalg.eigvalsh(R).abs().max() for R in residuals])
    squares = torch.stack([R.square().sum() for R in residuals])

    def estimate(start: Tensor) -> float:
        return srip([weight], groups=groups, start=[start], iterations=iterations, reduction="none").max().item()

    return ResidualNorms(
        layer,
        so_per_row=squares.sum().item() / sum(map(len, residuals)),
        sigma=sigmas.max().item(),
        estimates=[estimate(start) for start in starts],
        warm=None if warm is None else estimate(warm),
    )
