"""The covariance of what goes into each layer of a network and of what comes out, and the law between the two."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ortho_kernels.spectra import StreamingCovariance

from ...randomness import generator_for
from .layer_samples import can_sample, full_matrix, sample_layer
from .whiteness import Whiteness, whiteness

CALIBRATION = 10  # batches by which batch norm sets its statistics
Batches = Callable[[], Iterable[Tensor]]


@dataclass(frozen=True)
class LayerMeasurement:
    """Of one layer W, whose patches x have the covariance S."""

    layer: str
    arriving: Whiteness  # of the input's channels
    output: Whiteness  # of the output's
    if_white: float  # distance of W W^T, the output's covariance if S were the identity
    patches: float | None  # distance of S from white; None where patches have more numbers than are kept
    law: float | None  # |C - W S W^T|_F / |C|_F, C the covariance of the output; rounding alone


@dataclass(frozen=True)
class Measurement:
    """Of one network and one kind of input; layers in the order in which they were called."""

    layers: list[LayerMeasurement]
    representation: Whiteness  # of the features that the network puts out
    uncalled: list[str]  # layers that no picture went through


@torch.no_grad()
def measure(
    network: nn.Module, layers: Iterable[str], batches: Batches, *, positions: int, patch_numbers: int, seed: int = 0
) -> Measurement:
    """Sends the batches through the network, in evaluation mode, and measures these layers.

    Batch norm takes its statistics of these inputs (it changes the network): those of training are of real pictures, and
    a network that was not trained has none.

    Args:
        batches: gives float pictures `(batch, channels, size, size)`, the same at each call.
        positions: of each picture that a layer's covariances are made of, drawn evenly, the same at each call.
        patch_numbers: patches of more numbers than this have no covariance: it would take their square in memory.
    """
    calibrate_batch_norms(network.eval(), batches)
    modules = dict(network.named_modules())
    states = {name: _State() for name in layers if can_sample(modules[name])}
    called: Counter[str] = Counter()

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def receive(module: Any, inputs: Any, output: Tensor) -> None:
            generator = generator_for("cpu", seed, f"positions of {name}", called[name])
            called[name] += 1
            samples = sample_layer(module, inputs[0], output, positions, generator)
            state = states[name]
            state.arriving.update(samples.arriving)
            state.outputs.update(samples.outputs)
            if samples.patches is not samples.arriving and samples.patches.shape[1] <= patch_numbers:
                state.patches.update(samples.patches)

        return receive

    handles = [modules[name].register_forward_hook(hook(name)) for name in states]
    features = StreamingCovariance()
    try:
        for images in batches():
            features.update(network(images))
    finally:
        for handle in handles:
            handle.remove()
    measured = [states[name].measured(name, modules[name]) for name in called]
    uncalled = [name for name in states if name not in called]
    return Measurement(measured, whiteness(features.eigenvalues(), features.count), uncalled)


def calibrate_batch_norms(network: nn.Module, batches: Batches) -> None:
    """Makes the running statistics of every batch norm the mean of those of the first CALIBRATION batches."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean
        norm.train()
    for images in islice(batches(), CALIBRATION):
        network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def distance_from_white(covariance: Tensor) -> float:
    """|C / m - I|_F / sqrt(d), m the mean of the diagonal: see `Whiteness`. NaN where nothing varies."""
    mean = covariance.diagonal().mean()
    identity = torch.eye(len(covariance), dtype=covariance.dtype)
    return (torch.linalg.matrix_norm(covariance / mean - identity) / len(covariance) ** 0.5).item()


@dataclass
class _State:
    """The covariances of one layer while the batches go through."""

    arriving: StreamingCovariance = field(default_factory=StreamingCovariance)
    patches: StreamingCovariance = field(default_factory=StreamingCovariance)  # unused where they are what arrives
    outputs: StreamingCovariance = field(default_factory=StreamingCovariance)

    def measured(self, name: str, layer: Any) -> LayerMeasurement:
        matrix, outputs = full_matrix(layer), self.outputs.covariance()
        seen = self.arriving if isinstance(layer, nn.Linear) else self.patches
        patches = law = None
        if seen.count:
            covariance = seen.covariance()
            patches = distance_from_white(covariance)
            error = outputs - matrix @ covariance @ matrix.T
            law = (torch.linalg.matrix_norm(error) / torch.linalg.matrix_norm(outputs)).item()
        return LayerMeasurement(
            name,
            whiteness(self.arriving.eigenvalues(), self.arriving.count),
            whiteness(self.outputs.eigenvalues(), self.outputs.count),
            distance_from_white(matrix @ matrix.T),
            patches,
            law,
        )
