"""What a trained encoder looks like inside: its weights, its stages, its representation, and LiDAR."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from torch import Tensor, nn

from ortho_kernels.spectra import (
    FeatureSpectrum,
    NetworkSpectra,
    WeightSpectrum,
    feature_spectra,
    find_stages,
    last_layers,
    lidar,
    weight_spectra,
)
from ortho_kernels.spectra.features import REPRESENTATION

from ..data import Images, Splits
from ..randomness import generator_for
from .augmented import Augmentation
from .features import View, readable

STAGE_IMAGES = 2000  # pictures by which the stages are seen
LIDAR_IMAGES, LIDAR_VIEWS = 1000, 10  # the paper: 1000 and 50
BATCH = 250


def encoder_spectra(
    encoder: nn.Module,
    weights: Mapping[str, WeightSpectrum],
    features: Tensor,
    images: Images,
    view: View,
    seed: int,
    augmentation: Augmentation | None = None,
    stages: Sequence[str] | None = None,
    folded: bool = False,
) -> NetworkSpectra:
    """The spectra of an encoder with these features `(pictures, dimensions)` of the pictures.

    Stages are seen by 2000 of the pictures, drawn by the seed, and LiDAR by 10 augmented views of 1000. An encoder of which
    no stages are known, or whose stages put out no maps, tokens or vectors, has none; a line says so. `weights` may be of
    another network (a run's are the student's); with `folded` they are the encoder's, and its stages' are among them.

    Raises ValueError and TypeError where `stages`, names of modules, can't be seen.
    """
    few = images.subset(STAGE_IMAGES, generator_for("cpu", seed, "pictures of stages"))
    found, last = _known_stages(encoder, few, view) if stages is None else _stages(encoder, few, view, stages)
    if folded:
        stage_weights = {name: weights[name] for name in last if name in weights}
    else:
        stage_weights = weight_spectra(encoder, last) if last else {}
    views = None
    if augmentation is not None:
        views = augmentation.features(encoder, images, LIDAR_IMAGES, LIDAR_VIEWS)
    return NetworkSpectra(
        weights=weights,
        stage_weights=stage_weights,
        features={**found, REPRESENTATION: FeatureSpectrum.of(features)},
        lidar=None if views is None else lidar(views),
    )


def pictures_looked_at(judged: Splits, most: int, seed: int) -> Images:
    """At most so many test pictures, those that a run's own evaluation draws; without labels, of pretraining pictures."""
    if judged.labeled is None:
        return judged.pretraining.subset(most, generator_for("cpu", seed, "evaluation sample"))
    return judged.labeled[1].subset(most, generator_for("cpu", seed, "evaluation test"))


def of_weights(weights: Iterable[tuple[str, Tensor, int]]) -> dict[str, WeightSpectrum]:
    """Of what a penalty covers: names, weights and their groups."""
    return {name: WeightSpectrum.of(weight, groups) for name, weight, groups in weights}


def representation_results(spectra: NetworkSpectra) -> dict[str, float]:
    """What results.json holds of them."""
    summary = spectra.summary()
    keys = ("alpha_req", "stable_rank", "largest_correlation", "lidar")
    return {f"representation_{key}": value for key in keys if (value := summary[key]) is not None}


def _known_stages(encoder: nn.Module, images: Images, view: View) -> tuple[dict[str, FeatureSpectrum], list[str]]:
    try:
        return _stages(encoder, images, view, find_stages(encoder))
    except (TypeError, ValueError) as reason:  # no reason to lose what a run has learned
        print(f"No spectra of stages: {reason}.", flush=True)
        return {}, []


def _stages(
    encoder: nn.Module, images: Images, view: View, names: Sequence[str]
) -> tuple[dict[str, FeatureSpectrum], list[str]]:
    """The stages' features, and the names of their last layers' weights."""
    device = next(encoder.parameters()).device

    def batches() -> Iterator[Tensor]:
        for pixels, _ in readable(images, BATCH):
            yield view(pixels.to(device))

    found = feature_spectra(encoder, batches(), names)
    found.pop(REPRESENTATION)
    return found, last_layers(encoder, names)
