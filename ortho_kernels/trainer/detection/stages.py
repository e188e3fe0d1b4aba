"""An encoder cut into its stages, which put out the maps that a detector looks at."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ortho_kernels.spectra.stages import stages_if_known

from ..errors import TrainerError

PROBE = 128  # side of the picture on which shapes are seen: strides up to 64 leave a map to pool


@dataclass(frozen=True)
class Stage:
    """One after the other they take a picture `(batch, channels, height, width)` from map to map."""

    module: nn.Sequential  # the encoder's own layers; those before its first stage belong to that
    channels: int  # of the map that it puts out
    stride: int  # of that map, in pixels of the picture


def split_stages(encoder: nn.Module, channels: int, size: int, name: str) -> list[Stage]:
    """The stages, which share the encoder's layers, of an encoder of pictures `(channels, size, size)`.

    Layers between the last stage and the pooling, such as a last norm, belong to the last stage.

    Raises TrainerError, by the encoder's name, where it has no stages that put out maps, one from the other.
    """
    names = stages_if_known(encoder)
    layers = list(_chain(encoder, "", names))
    ends = [place for place, (layer, _) in enumerate(layers) if layer in names]
    if len(ends) < 2:
        raise _no_stages(name, f"none are known of {type(getattr(encoder, 'network', encoder)).__name__}")
    if not _puts_out_maps(encoder, names[-1], channels, size):
        raise _no_stages(name, "its blocks put out vectors, no maps")
    outputs = _outputs(encoder, [layer for _, layer in layers], channels)
    if not outputs:
        raise _no_stages(name, "its layers do not follow each other")
    maps = [outputs[end] for end in ends]
    strides = [PROBE // output.shape[-1] for output in maps]
    if strides != sorted(set(strides)):
        raise _no_stages(name, f"their strides would be {', '.join(map(str, strides))}")
    last = ends[-1]
    while last + 1 < len(layers) and outputs[last + 1].shape[2:] == outputs[last].shape[2:]:
        last += 1
    starts = [0, *(end + 1 for end in ends[:-1])]
    return [
        Stage(nn.Sequential(*(layer for _, layer in layers[start : end + 1])), output.shape[1], stride)
        for start, end, output, stride in zip(starts, [*ends[:-1], last], maps, strides, strict=True)
    ]


def _chain(module: nn.Module, prefix: str, stages: list[str]) -> Iterator[tuple[str, nn.Module]]:
    """The names of layers, and the layers, of which each is to take the output of the one before it."""
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if any(stage.startswith(f"{path}.") for stage in stages):
            yield from _chain(child, f"{path}.", stages)
        else:
            yield path, child


@torch.no_grad()
def _puts_out_maps(encoder: nn.Module, stage: str, channels: int, size: int) -> bool:
    encoder, dimensions = copy.deepcopy(encoder).eval(), []
    encoder.get_submodule(stage).register_forward_hook(lambda _, inputs, output: dimensions.append(output.dim()))
    encoder(_picture(encoder, channels, size))
    return set(dimensions) == {4}


@torch.no_grad()
def _outputs(encoder: nn.Module, layers: list[nn.Module], channels: int) -> list[Tensor]:
    """What each layer puts out for one picture; nothing where the layers in a row are not the encoder."""
    encoder, layers = copy.deepcopy((encoder, layers))  # trying them changes nothing
    images = _picture(encoder.eval(), channels, PROBE)
    outputs: list[Tensor] = []
    try:
        for layer in layers:
            outputs.append(layer(outputs[-1] if outputs else images).clone())
        is_encoder = torch.allclose(outputs[-1].flatten(1), encoder(images), rtol=1e-4, atol=1e-5)
    except (RuntimeError, AssertionError, TypeError, ValueError, AttributeError):  # of layers that are no chain
        return []
    return outputs if is_encoder else []


def _picture(encoder: nn.Module, channels: int, side: int) -> Tensor:
    noise = torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(0))
    return noise.to(next(encoder.parameters()).device)


def _no_stages(name: str, reason: str) -> TrainerError:
    return TrainerError(
        f"{name} has no stages to detect with: {reason}. A detector needs maps whose stride grows from stage to stage: take "
        "a ResNet, or another network of which layer1, layer2, ... or stages are known."
    )
