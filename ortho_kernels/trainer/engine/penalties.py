"""What is added to a method's loss: nothing, SO, SRIP or a control, at the paper's strength for the backbone."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import MISSING, DictConfig, OmegaConf
from torch import Tensor, nn

from ortho_kernels import OrthogonalityPenalty, paper_gamma
from ortho_kernels.penalty.gradient_scaling import scale_factor

from ..errors import TrainerError, did_you_mean
from ..options import at_least, one_of, option
from ..registry import Registry

SIDES = one_of("small", "large", "rows", "cols")


@dataclass
class Penalty(ABC):
    """The options of a penalty are its fields, with their defaults."""

    name: str = MISSING  # under which it was chosen
    gamma: float | None = option(None, "factor of the sum over weights; the paper's for the backbone", at_least(0))

    @abstractmethod
    def build(self, encoder: nn.Module, seed: int) -> OrthogonalityPenalty:
        """The plain sum over the encoder's conv and linear weights: its own gamma is 1.

        What it draws is a function of the run's seed. Raises ValueError for options that do not fit the encoder.
        """


@dataclass
class SO(Penalty):
    name: str = "so"
    side: str = option("small", "which Gram matrix is compared with the identity", SIDES)
    split_qkv: Any = option(False, "fused query, key and value weights as three matrices; true, or name patterns")
    groups: str = option("split", "grouped convolutions as one matrix a group, or one in all", one_of("split", "whole"))
    include: list[str] | None = option(None, "name patterns of weights, such as 'layer4.*'; all by default")
    exclude: list[str] | None = option(None, "name patterns of weights to leave out")
    extra: list[str] | None = option(None, "name patterns of other weights to add: of an LSTM, a router, ...")

    def build(self, encoder: nn.Module, seed: int) -> OrthogonalityPenalty:
        return OrthogonalityPenalty(encoder, kind="so", gamma=1.0, **self.arguments())

    def arguments(self) -> dict[str, Any]:
        """The options that OrthogonalityPenalty takes by the same names."""
        return {key: value for key, value in vars(self).items() if key not in ("name", "gamma")}


@dataclass
class NoPenalty(SO):
    """A baseline: SO with a gamma of 0, also where a recipe sets another."""

    gamma: float | None = 0.0


@dataclass
class SRIP(SO):
    name: str = "srip"
    iterations: int = option(2, "products with the residual in the power iteration", at_least(1))
    warm_start: bool = option(False, "start from the last step's vectors, not from random ones")

    def build(self, encoder: nn.Module, seed: int) -> OrthogonalityPenalty:
        return OrthogonalityPenalty(encoder, kind="srip", gamma=1.0, seed=seed, **self.arguments())


@dataclass
class Decay(Penalty):
    """The control of SO: a decay of the same weights at the rate that SO has far from orthogonality."""

    name: str = "decay"
    gamma: float | None = option(None, "factor of the sum over weights; SO's for the backbone", at_least(0))
    include: list[str] | None = option(None, "name patterns of weights, such as 'layer4.*'; all by default")
    exclude: list[str] | None = option(None, "name patterns of weights to leave out")

    def build(self, encoder: nn.Module, seed: int) -> OrthogonalityPenalty:
        return WeightDecay(encoder, gamma=1.0, include=self.include, exclude=self.exclude)


class AutogradPenalty(OrthogonalityPenalty):
    """Sums over the same weights another penalty, whose gradient is left to autograd; reports measure SO."""

    def penalty(self) -> Tensor:
        """The differentiable scalar `gamma * sum of penalty(W)`, from `self.weights()`."""
        raise NotImplementedError

    def accumulate_gradients(self, scale: float = 1.0, *, scaler: torch.amp.GradScaler | None = None) -> Tensor:
        value = self.penalty()
        (scale * scale_factor(scaler, value.device) * value).backward()
        return value.detach()

    def step_(self, *arguments: Any, **options: Any) -> Tensor:
        raise NotImplementedError(
            f"{type(self).__name__} has no step of its own: add its gradient before the optimizer's"
        )


class WeightDecay(AutogradPenalty):
    """`gamma * 2 * sum of |W|^2`, whose gradient is `4 gamma W`.

    SO's gradient in the direction of a singular value s is `4 gamma (s^2 - 1) s`: a decay at the rate
    `4 gamma (s^2 - 1)`, positive above 1 and negative below. What SO does beyond this decay is orthogonality.
    """

    def penalty(self) -> Tensor:
        return 2 * self.gamma * torch.stack([weight.float().square().sum() for _, weight, _ in self.weights()]).sum()


PENALTIES: Registry[Penalty] = Registry(
    "penalty", Penalty, "ortho_kernels.penalties", {"none": NoPenalty, "so": SO, "srip": SRIP, "decay": Decay}
)


def choose_gamma(penalty: DictConfig, backbone: DictConfig, gammas: Mapping[str, float], given: bool) -> float:
    """A run's gamma: 0 for a baseline, else the one that is `given` or a recipe's, else the paper's for the backbone.

    Raises TrainerError for a baseline that is given another, a penalty without any, and `gammas` of no penalty.
    """
    if unknown := [name for name in gammas if ":" not in name and name not in PENALTIES.names()]:
        raise TrainerError(
            f"gammas names no penalty by {unknown[0]}.{did_you_mean(unknown[0], PENALTIES.names())} "
            f"Valid: {', '.join(PENALTIES.names())}, or MODULE:CLASS."
        )
    if OmegaConf.get_type(penalty) is NoPenalty:
        if given and penalty.gamma:
            raise TrainerError(
                f"penalty=none is the baseline, whose gamma is 0; got penalty.gamma={penalty.gamma}. "
                "Choose penalty=so or penalty=srip, or leave penalty.gamma out."
            )
        return 0.0
    if penalty.gamma is not None:
        return penalty.gamma
    if penalty.name in gammas:
        return gammas[penalty.name]
    if penalty.name not in PENALTIES:
        raise TrainerError(f"penalty={penalty.name} has no gamma of the paper's: give penalty.gamma=NUMBER.")
    kind = "so" if penalty.name == "decay" else penalty.name  # the control is as strong as what it controls
    return paper_gamma(kind, backbone.get("model", backbone.name))  # a network of timm or torchvision is its model


def build_penalty(penalty: Penalty, encoder: nn.Module, seed: int) -> OrthogonalityPenalty:
    """The plain sum, gamma not yet applied."""
    try:
        built = penalty.build(encoder, seed)
    except (TypeError, ValueError) as error:
        raise TrainerError(f"penalty: {error}") from None
    if not isinstance(built, OrthogonalityPenalty):
        raise TrainerError(
            f"penalty={penalty.name}: build gives an ortho_kernels.OrthogonalityPenalty; got {type(built).__name__}."
        )
    return built
