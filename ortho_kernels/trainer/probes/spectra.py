"""What a trained encoder looks like inside: its weights, its stages, its representation, and LiDAR."""

from collections.abc import Iterable, Iterator, Mapping

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

from ..data import Images
from ..randomness import generator_for
from .augmented import Augmentation
from .features import View, readable

STAGE_IMAGES = 2000  # pictures by which the stages are seen
LIDAR_IMAGES, LIDAR_VIEWS = 1000, 10  # the paper: 1000 and 50


def encoder_spectra(
    encoder: nn.Module,
    weights: Mapping[str, WeightSpectrum],
    features: Tensor,
    images: Images,
    view: View,
    seed: int,
    augmentation: Augmentation | None,
) -> NetworkSpectra:
    """The spectra of an encoder with these weights and these features `(pictures, dimensions)`.

    Stages are seen by 2000 of the pictures, drawn by the seed, and LiDAR by 10 augmented views of 1000. An encoder of which
    no stages are known, or whose stages put out no maps, tokens or vectors, has none; a line says so.
    """
    stages, last = _stages(encoder, images.subset(STAGE_IMAGES, generator_for("cpu", seed, "pictures of stages")), view)
    views = None
    if augmentation is not None:
        views = augmentation.features(encoder, images, LIDAR_IMAGES, LIDAR_VIEWS)
    return NetworkSpectra(
        weights=weights,
        stage_weights=weight_spectra(encoder, last) if last else {},
        features={**stages, REPRESENTATION: FeatureSpectrum.of(features)},
        lidar=None if views is None else lidar(views),
    )


def of_weights(weights: Iterable[tuple[str, Tensor, int]]) -> dict[str, WeightSpectrum]:
    """Of what a penalty covers: names, weights and their groups."""
    return {name: WeightSpectrum.of(weight, groups) for name, weight, groups in weights}


def representation_results(spectra: NetworkSpectra) -> dict[str, float]:
    """What results.json holds of them."""
    summary = spectra.summary()
    keys = ("alpha_req", "stable_rank", "largest_correlation", "lidar")
    return {f"representation_{key}": value for key in keys if (value := summary[key]) is not None}


def _stages(encoder: nn.Module, images: Images, view: View) -> tuple[dict[str, FeatureSpectrum], list[str]]:
    """Their features, and the names of their last layers' weights."""
    weight = next(encoder.parameters())

    def batches() -> Iterator[Tensor]:
        for pixels, _ in readable(images, 250):
            yield view(pixels.to(weight.device))

    try:
        names = find_stages(encoder)
        found = feature_spectra(encoder, batches(), names)
        found.pop(REPRESENTATION)
        return found, last_layers(encoder, names)
    except (TypeError, ValueError) as reason:
        print(f"No spectra of stages: {reason}.", flush=True)
        return {}, []
