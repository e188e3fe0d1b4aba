"""All that is measured of one network: its weights, and its features for each kind of input."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ortho_kernels import OrthogonalityPenalty

from ...errors import TrainerError
from ...options import at_least, option
from ...randomness import generator_for
from .inputs import Inputs
from .layer_samples import can_sample
from .measurement import Measurement, measure
from .residual_norms import ResidualNorms, residual_norms


@dataclass
class PropagationSettings:
    positions: int = option(16, "of a picture, of which the covariances at each layer are made", at_least(1))
    patch_numbers: int = option(1200, "in a patch; the covariance of larger ones is left out", at_least(1))
    starts: int = option(8, "start vectors of SRIP for each weight", at_least(1))
    iterations: int = option(2, "products with the residual in SRIP's power iteration", at_least(1))
    seed: int = option(0, "on which weights, noise, positions and start vectors depend")


@dataclass(frozen=True)
class Propagation:
    architecture: str
    weights: str  # what tells the network from others of its architecture
    residuals: list[ResidualNorms]  # of each weight that the penalty covers
    measurements: Mapping[str, Measurement]  # by the kind of input
    not_measured: dict[str, str] = field(default_factory=dict)  # the reason, by the layer's name


def propagate(
    encoder: nn.Module,
    architecture: str,
    weights: str,
    inputs: Inputs,
    settings: PropagationSettings,
    warm_starts: Mapping[str, Tensor] | None = None,
) -> Propagation:
    """Measures a network, of which batch norm's statistics change. Raises TrainerError for a weight with NaN or Inf."""
    covered = OrthogonalityPenalty(encoder).weights()
    if bad := [name for name, weight, _ in covered if not weight.isfinite().all()]:
        raise TrainerError(f"{weights}: {bad[0]} holds NaN or Inf, so nothing can be measured behind it.")
    residuals = []
    for name, weight, groups in covered:
        order = min(len(weight) // groups, weight[0].numel())
        generator = generator_for("cpu", settings.seed, f"start vectors of {name}")
        starts = [torch.randn(groups, order, generator=generator) for _ in range(settings.starts)]
        warm = None if warm_starts is None else warm_starts.get(name)
        warm = None if warm is None else warm.cpu().view(groups, order)
        residuals.append(residual_norms(name, weight, groups, starts, warm, settings.iterations))
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name, *_ in covered))
    measurements = {
        kind: measure(
            encoder,
            layers,
            lambda kind=kind: inputs.batches(kind),  # type: ignore[misc]
            positions=settings.positions,
            patch_numbers=settings.patch_numbers,
            seed=settings.seed,
        )
        for kind in inputs.kinds
    }
    modules = dict(encoder.named_modules())
    reached = {layer.layer for measurement in measurements.values() for layer in measurement.layers}
    reasons = {
        name: "it was not called" if can_sample(modules[name]) else f"a {type(modules[name]).__name__}"
        for name in layers
        if name not in reached
    }
    return Propagation(architecture, weights, residuals, measurements, reasons)
