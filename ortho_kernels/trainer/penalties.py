"""What is added to a method's loss: nothing, SO or SRIP at the strengths of the paper's grid, or a control."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ortho_kernels import OrthogonalityPenalty

from .errors import TrainerError


@dataclass
class PenaltySettings:
    kind: str = "so"
    gamma: float = 1e-6  # times the plain sum over the encoder's conv and linear weights
    side: str = "small"
    split_qkv: bool = False  # a transformer's fused query, key and value weights as three matrices
    include: list[str] | None = None  # patterns of weight names, "layer4.*"; all by default
    exclude: list[str] | None = None


@dataclass
class SRIPSettings(PenaltySettings):
    kind: str = "srip"
    gamma: float = 1e-4
    iterations: int = 2
    warm_start: bool = False


@dataclass
class DecaySettings:
    """The control of SO: a decay of the same weights at the rate that SO has far from orthogonality."""

    kind: str = "decay"
    gamma: float = 1e-6
    include: list[str] | None = None
    exclude: list[str] | None = None


# The paper tunes gamma over three values a regularizer (arXiv 2411.00392, section 5).
PENALTIES: dict[str, Any] = {
    "none": PenaltySettings(gamma=0.0),
    "so_weak": PenaltySettings(gamma=1e-7),
    "so": PenaltySettings(),
    "so_strong": PenaltySettings(gamma=1e-5),
    "srip_weak": SRIPSettings(gamma=1e-5),
    "srip": SRIPSettings(),
    "srip_strong": SRIPSettings(gamma=1e-3),
    "decay": DecaySettings(),
}


class WeightDecay(OrthogonalityPenalty):
    """`gamma * 2 * sum of |W|^2`, whose gradient is `4 gamma W`; reports measure SO.

    SO's gradient in the direction of a singular value s is `4 gamma (s^2 - 1) s`: a decay at the rate
    `4 gamma (s^2 - 1)`, positive above 1 and negative below. What SO does beyond this decay is orthogonality.
    """

    def penalty(self) -> Tensor:
        return 2 * self.gamma * torch.stack([weight.float().square().sum() for _, weight, _ in self.weights()]).sum()

    def accumulate_gradients(self, scale: float = 1.0) -> Tensor:
        value = self.penalty()
        (scale * value).backward()
        return value.detach()


def build_penalty(settings: Any, encoder: nn.Module) -> OrthogonalityPenalty:
    """The plain sum, gamma not yet applied."""
    options = {key: value for key, value in settings.items() if key not in ("kind", "gamma")}
    try:
        if settings.kind == "decay":
            return WeightDecay(encoder, gamma=1.0, **options)
        return OrthogonalityPenalty(encoder, kind=settings.kind, gamma=1.0, **options)
    except (TypeError, ValueError) as error:
        raise TrainerError(f"penalty: {error}") from None
