"""Orthogonality penalties over all weights of a model in one call, exact and differentiable.

    from ortho_kernels import OrthogonalityPenalty
    penalty = OrthogonalityPenalty(encoder, kind="so", gamma=1e-6)
    loss = criterion(...) + penalty()

The formulas are in `ortho_kernels.reference`; names that existing code imports are in `ortho_kernels.compat`.
"""

from .backends.registry import use_backend
from .convolutions import convolution_orthogonality
from .functional import soft_orthogonality, srip
from .gradients import soft_orthogonality_value_and_grad, srip_value_and_grad
from .low_rank import low_rank_soft_orthogonality
from .penalty import CosineSchedule, LoraPenalty, OrthogonalityPenalty, Schedule, StepSchedule, paper_gamma

__version__ = "0.1.0"
__all__ = [
    "CosineSchedule",
    "LoraPenalty",
    "OrthogonalityPenalty",
    "Schedule",
    "StepSchedule",
    "convolution_orthogonality",
    "low_rank_soft_orthogonality",
    "paper_gamma",
    "soft_orthogonality",
    "soft_orthogonality_value_and_grad",
    "srip",
    "srip_value_and_grad",
    "use_backend",
]
