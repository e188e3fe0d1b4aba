"""Spectra of what a network makes of pictures: its stages, and the representation that it returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .correlation import largest_correlation
from .covariance import StreamingCovariance, descending_eigenvalues
from .forward_passes import Batches, forward_passes
from .layer_outputs import LayerOutputs, as_features
from .power_law import alpha_req
from .ranks import effective_rank, rankme, stable_rank
from .stages import find_stages

REPRESENTATION = "representation"


@dataclass(frozen=True)
class FeatureSpectrum:
    """Of features `(samples, dimensions)`, one sample a picture.

    Attributes:
        samples: pictures.
        eigenvalues: of the centered covariance, float64 `(dimensions,)`, descending.
        correlation: of the dimensions, float64 `(dimensions, dimensions)`; NaN where a dimension does not vary.
        rankme: see `rankme`.
    """

    samples: int
    eigenvalues: Tensor
    correlation: Tensor
    rankme: float

    @classmethod
    def of(cls, features: Tensor | StreamingCovariance) -> "FeatureSpectrum":
        """Of a table of features, or of the streamed covariance of one.

        RankMe of a streamed one comes from the second moments: singular values below 1e-8 of the largest are rounding.
        """
        if isinstance(features, StreamingCovariance):
            covariance = features
            rank = effective_rank(descending_eigenvalues(covariance.second_moments()).sqrt())
        else:
            covariance = StreamingCovariance()
            covariance.update(features)
            rank = rankme(features)
        return cls(covariance.count, covariance.eigenvalues(), covariance.correlation(), rank)

    @property
    def effective_rank(self) -> float:
        """Of the eigenvalues: how many directions carry the variance evenly."""
        return effective_rank(self.eigenvalues)

    @property
    def stable_rank(self) -> float:
        """Of the centered features: the whole variance over that of the strongest direction."""
        return stable_rank(self.eigenvalues.sqrt())

    @property
    def alpha_req(self) -> float:
        """How fast the eigenvalues fall; see `alpha_req`."""
        return alpha_req(self.eigenvalues)

    @property
    def largest_correlation(self) -> float:
        """Of two dimensions: 1 where one repeats another."""
        return largest_correlation(self.correlation)


def feature_spectra(
    network: nn.Module, batches: Batches, stages: str | Sequence[str] | None = None
) -> dict[str, FeatureSpectrum]:
    """The spectra of the outputs of stages, averaged over positions, and of the `representation` that the network returns.

    Memory holds one covariance a stage, however many pictures there are.

    Args:
        network: any module that takes pictures. It is looked at in evaluation mode, and nothing in it changes. A classifier
            returns logits: put `nn.Identity()` in the place of its head to see its features.
        batches: see `forward_passes`.
        stages: names of modules; by default those of `find_stages`. None are seen beside the representation for `[]`.

    Raises:
        ValueError: for a name that is no module's, a network whose stages are not known or that does not return a row a
            picture, and batches without a picture.
        TypeError: for a network that returns no tensor of features.
    """
    names = find_stages(network) if stages is None else as_names(stages)
    covariances = {name: StreamingCovariance() for name in (*names, REPRESENTATION)}

    def receive(output: Any) -> None:
        covariances[REPRESENTATION].update(as_features("the network", network, output))

    with LayerOutputs(network, names, lambda name, features: covariances[name].update(features)):
        pictures = forward_passes(network, batches, receive)
    rows = covariances[REPRESENTATION].count
    if rows != pictures:
        raise ValueError(f"the network must return a row a picture; it returned {rows} for {pictures} pictures")
    return {name: FeatureSpectrum.of(covariance) for name, covariance in covariances.items()}


def as_names(stages: str | Sequence[str]) -> list[str]:
    """One name is a list of one."""
    return [stages] if isinstance(stages, str) else list(stages)
