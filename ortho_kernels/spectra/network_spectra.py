"""Everything at once: the spectra of a network's weights, stages and representation, as a table and as JSON."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from torch import Tensor, nn

from .correlation import thinned
from .features import REPRESENTATION, FeatureSpectrum, as_names, feature_spectra
from .forward_passes import Batches, pictures_of
from .stages import last_layers, stages_if_known
from .weights import WeightSpectrum, weight_spectra, weights_summary

MOST_CORRELATED = 64  # dimensions of the correlation matrix that is written
MOST_OPERATOR = 256  # singular values of an operator that are written
ROUNDING = 1e-13  # of a singular value, relative to the largest


@dataclass(frozen=True)
class NetworkSpectra:
    """Prints as a table.

    Attributes:
        weights: by the names of weights.
        stage_weights: of the last convolution or linear layer of each stage, likewise.
        features: of stages by the names of their modules, and last of the `representation`.
        lidar: LiDAR of the representation, where views of pictures were given.
    """

    weights: Mapping[str, WeightSpectrum]
    stage_weights: Mapping[str, WeightSpectrum]
    features: Mapping[str, FeatureSpectrum]
    lidar: float | None = None

    @property
    def representation(self) -> FeatureSpectrum:
        """What the network returns."""
        return self.features[REPRESENTATION]

    def summary(self) -> dict[str, float | None]:
        """One number for each idea, of the representation."""
        spectrum = self.representation
        return {
            "rankme": spectrum.rankme,
            "effective_rank": spectrum.effective_rank,
            "stable_rank": spectrum.stable_rank,
            "alpha_req": spectrum.alpha_req,
            "lidar": self.lidar,
            "largest_correlation": spectrum.largest_correlation,
        }

    def as_dict(self) -> dict[str, Any]:
        """For JSON: lists, numbers and None. Of the correlation matrix 64 evenly chosen dimensions are kept, of an
        operator 256 evenly chosen singular values."""
        stages = {name: spectrum for name, spectrum in self.features.items() if name != REPRESENTATION}
        operators = {
            name: {"input_size": list(each.input_size or ()), "singular_values": _evenly(each.operator.tolist())}
            for name, each in self.weights.items()
            if each.operator is not None
        }
        folded = {name: each.norm for name, each in self.weights.items() if each.norm is not None}
        return {
            "weights": {name: each.singular_values.flatten().tolist() for name, each in self.weights.items()},
            "representation": self.representation.eigenvalues.tolist(),
            "stages": {name: each.eigenvalues.tolist() for name, each in stages.items()},
            "stage_weights": {name: _descending(each.eigenvalues) for name, each in self.stage_weights.items()},
            "correlation": thinned(self.representation.correlation, MOST_CORRELATED).tolist(),
            "summary": self.summary(),
            "weights_summary": weights_summary(self.weights),
            **({"folded": folded} if folded else {}),
            **({"operators": operators} if operators else {}),
        }

    def __str__(self) -> str:
        return "\n\n".join(filter(None, [_weights_table(self.weights), _features_table(self.features, self.lidar)]))


def spectra_of(
    network: nn.Module,
    batches: Batches,
    *,
    layers: str | Sequence[str] | None = None,
    stages: str | Sequence[str] | None = None,
    fold_batch_norm: bool = False,
    operators: bool = False,
) -> NetworkSpectra:
    """The spectra of a network's weights and of what it makes of pictures.

        result = spectra_of(network, images)
        print(result)

    Args:
        network: any module that takes pictures and returns features, or logits; nothing in it changes.
        batches: a tensor `(pictures, ...)`, or an iterable of batches such as a DataLoader; see `forward_passes`.
        layers, fold_batch_norm, operators: of the weights; see `weight_spectra`.
        stages: names of modules; by default those of `find_stages`, and none where the network is of another form.

    Raises:
        ValueError, TypeError: as `weight_spectra` and `feature_spectra` do.
    """
    first, batches = _peek(batches)
    options: dict[str, Any] = {"images": first, "fold_batch_norm": fold_batch_norm, "operators": operators}
    weights = weight_spectra(network, layers, **options)
    names = stages_if_known(network) if stages is None else as_names(stages)
    features = feature_spectra(network, batches, names)
    last = {name: weights[name] for name in last_layers(network, names) if name in weights}
    return NetworkSpectra(weights, last, features)


def _peek(batches: Batches) -> tuple[Tensor | None, Batches]:
    """The first batch, and all of them."""
    if isinstance(batches, Tensor):
        return batches, batches
    batches = iter(batches)
    first = next(batches, None)
    if first is None:
        return None, ()
    return pictures_of(first), chain([first], batches)


def _weights_table(weights: Mapping[str, WeightSpectrum]) -> str:
    if not weights:
        return ""
    operators = any(each.operator is not None for each in weights.values())
    rows = [["weight", "matrix", "effective rank", "stable rank", "largest", "smallest"]]
    rows[0] += ["operator: largest", "smallest"] * operators
    for name, each in weights.items():
        groups, *matrix = each.shape
        form = (f"{groups} x " if groups > 1 else "") + " x ".join(map(str, matrix))
        rank = f"{each.effective_rank:.1f} of {each.full_rank}"
        extremes = [f"{value:.4g}" for value in _extremes(each.singular_values)]
        row = [name + " *" * (each.norm is not None), form, rank, f"{each.stable_rank:.1f}", *extremes]
        if operators:
            row += ["", ""] if each.operator is None else [f"{value:.4g}" for value in _extremes(each.operator)]
        rows.append(row)
    ranks = weights_summary(weights)["effective_rank"]
    lines = [
        _aligned(rows),
        f"effective rank, share of the full one: {ranks['by_layer']:.1%} with equal weight a layer, {ranks['pooled']:.1%} "
        "of all singular values pooled",
    ]
    if any(each.norm is not None for each in weights.values()):
        lines.append("* with its batch norm folded in")
    return "\n".join(lines)


def _features_table(features: Mapping[str, FeatureSpectrum], lidar: float | None) -> str:
    rows = [["features", "pictures", "effective rank", "stable rank", "RankMe", "alpha-ReQ", "largest correlation"]]
    for name, each in features.items():
        ranks = (
            f"{each.effective_rank:.1f} of {len(each.eigenvalues)}",
            f"{each.stable_rank:.1f}",
            f"{each.rankme:.1f}",
        )
        rows.append([name, str(each.samples), *ranks, f"{each.alpha_req:.2f}", f"{each.largest_correlation:.2f}"])
    lines = [_aligned(rows)]
    if len(features) == 1:
        lines.append("no stages: none are known of this network, so give names of its modules as stages=[...]")
    if lidar is not None:
        lines.append(f"LiDAR of the representation: {lidar:.1f}")
    return "\n".join(lines)


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([f"{first:{widths[0]}}", *cells]))
    return "\n".join(lines)


def _extremes(values: Tensor) -> tuple[float, float]:
    """The largest and the smallest; what is rounding beside the largest is 0."""
    if not values.numel():
        return math.nan, math.nan
    largest, smallest = values.max().item(), values.min().item()
    return largest, 0.0 if smallest < ROUNDING * largest else smallest


def _descending(values: Tensor) -> list[float]:
    return values.flatten().sort(descending=True).values.tolist()


def _evenly(values: list[float]) -> list[float]:
    if len(values) <= MOST_OPERATOR:
        return values
    return [values[round(i * (len(values) - 1) / (MOST_OPERATOR - 1))] for i in range(MOST_OPERATOR)]
