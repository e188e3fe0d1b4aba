"""Two ways from random weights to orthogonal ones, without training: the nearest, and some steps on the penalty alone."""

import torch
from torch import Tensor, nn

from ortho_kernels import OrthogonalityPenalty

from ...errors import TrainerError


@torch.no_grad()
def orthogonalize_(network: nn.Module) -> None:
    """Replaces each weight that the penalty covers by the nearest semi-orthogonal matrix: U V^T of its SVD U S V^T."""
    held = {id(parameter) for parameter in network.parameters()}
    for name, weight, groups in OrthogonalityPenalty(network).weights():
        base = weight if weight._base is None else weight._base
        if id(base) not in held:
            raise TrainerError(
                f"{name} is computed from other parameters, so it can't be replaced: leave out orthogonal."
            )
        weight.copy_(polar_factor(weight.reshape(groups, len(weight) // groups, -1)).view_as(weight))


def polar_factor(matrices: Tensor) -> Tensor:
    """U V^T of `(..., rows, cols)` matrices, by an SVD in float64."""
    U, _, Vh = torch.linalg.svd(matrices.to(torch.float64), full_matrices=False)
    return (U @ Vh).to(matrices.dtype)


def optimize_(network: nn.Module, steps: int, rate: float) -> None:
    """Takes steps of gradient descent on SO alone: a singular value s becomes s - 4 rate (s^2 - 1) s."""
    penalty = OrthogonalityPenalty(network, "so", gamma=1.0)
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=rate)
    for _ in range(steps):
        penalty.step_(optimizer)
    if lost := [name for name, weight, _ in penalty.weights() if not weight.isfinite().all()]:
        raise TrainerError(f"The steps on the penalty diverged in {lost[0]}: give a lower rate than {rate:g}.")
