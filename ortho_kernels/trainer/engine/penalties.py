"""What is added to a method's loss: nothing, SO, SRIP or a control, at the paper's strength for the backbone."""

from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from ortho_kernels import OrthogonalityPenalty, paper_gamma
from ortho_kernels.penalty.gradient_scaling import scale_factor

from ..errors import TrainerError
from ..options import at_least, one_of, option

KINDS = one_of("so", "srip", "decay")
SIDES = one_of("small", "large", "rows", "cols")


@dataclass
class PenaltySettings:
    kind: str = option("so", "what is summed over the encoder's conv and linear weights", KINDS)
    gamma: float | None = option(None, "factor of that sum; the paper's for the backbone by default", at_least(0))
    side: str = option("small", "which Gram matrix is compared with the identity", SIDES)
    split_qkv: Any = option(False, "fused query, key and value weights as three matrices; true, or name patterns")
    groups: str = option("split", "grouped convolutions as one matrix a group, or one in all", one_of("split", "whole"))
    include: list[str] | None = option(None, "name patterns of weights, such as 'layer4.*'; all by default")
    exclude: list[str] | None = option(None, "name patterns of weights to leave out")
    extra: list[str] | None = option(None, "name patterns of other weights to add: of an LSTM, a router, ...")


@dataclass
class NoPenaltySettings(PenaltySettings):
    """A baseline: gamma is 0, also where a recipe sets another, and the report measures SO."""

    gamma: float | None = 0.0


@dataclass
class SRIPSettings(PenaltySettings):
    kind: str = "srip"
    iterations: int = option(2, "products with the residual in the power iteration", at_least(1))
    warm_start: bool = option(False, "start from the last step's vectors, not from random ones")


@dataclass
class DecaySettings:
    """The control of SO: a decay of the same weights at the rate that SO has far from orthogonality."""

    kind: str = option("decay", "what is summed over the encoder's conv and linear weights", KINDS)
    gamma: float | None = option(None, "factor of that sum; SO's for the backbone by default", at_least(0))
    include: list[str] | None = option(None, "name patterns of weights, such as 'layer4.*'; all by default")
    exclude: list[str] | None = option(None, "name patterns of weights to leave out")


PENALTIES: dict[str, type[Any]] = {
    "none": NoPenaltySettings,
    "so": PenaltySettings,
    "srip": SRIPSettings,
    "decay": DecaySettings,
}


def choose_gamma(penalty: DictConfig, backbone: DictConfig, given: bool) -> float:
    """A run's gamma: 0 for a baseline, else the one that is `given` or a recipe's, else the paper's for the backbone."""
    if OmegaConf.get_type(penalty) is NoPenaltySettings:
        if given and penalty.gamma:
            raise TrainerError(
                f"penalty=none is the baseline, whose gamma is 0; got penalty.gamma={penalty.gamma}. "
                "Choose penalty=so or penalty=srip, or leave penalty.gamma out."
            )
        return 0.0
    if penalty.gamma is not None:
        return penalty.gamma
    kind = "so" if penalty.kind == "decay" else penalty.kind  # the control is as strong as what it controls
    network = backbone.get("model", backbone.name)  # a network of timm or torchvision is its model
    try:
        return paper_gamma(kind, network)
    except ValueError as error:
        raise TrainerError(f"penalty: {error}") from None


class WeightDecay(OrthogonalityPenalty):
    """`gamma * 2 * sum of |W|^2`, whose gradient is `4 gamma W`; reports measure SO.

    SO's gradient in the direction of a singular value s is `4 gamma (s^2 - 1) s`: a decay at the rate
    `4 gamma (s^2 - 1)`, positive above 1 and negative below. What SO does beyond this decay is orthogonality.
    """

    def penalty(self) -> Tensor:
        return 2 * self.gamma * torch.stack([weight.float().square().sum() for _, weight, _ in self.weights()]).sum()

    def accumulate_gradients(self, scale: float = 1.0, *, scaler: torch.amp.GradScaler | None = None) -> Tensor:
        value = self.penalty()
        (scale * scale_factor(scaler, value.device) * value).backward()
        return value.detach()


def build_penalty(settings: Any, encoder: nn.Module, seed: int) -> OrthogonalityPenalty:
    """The plain sum, gamma not yet applied; SRIP's start vectors are functions of the run's seed."""
    options = {key: value for key, value in settings.items() if key not in ("kind", "gamma")}
    if settings.kind == "srip":
        options["seed"] = seed
    try:
        if settings.kind == "decay":
            return WeightDecay(encoder, gamma=1.0, **options)
        return OrthogonalityPenalty(encoder, kind=settings.kind, gamma=1.0, **options)
    except (TypeError, ValueError) as error:
        raise TrainerError(f"penalty: {error}") from None
