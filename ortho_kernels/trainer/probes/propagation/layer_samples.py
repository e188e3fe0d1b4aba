"""What goes into a layer and what comes out of it, at a few positions of each picture."""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

Layer = nn.Linear | _ConvNd


class LayerSamples(NamedTuple):
    """Tables of features, one row a sample.

    `outputs` are W `patches` plus the bias, row by row: a patch is what one output position of a convolution sees.
    """

    arriving: Tensor  # (samples, channels of the input)
    patches: Tensor  # (samples, channels * kernel positions); for a linear layer the same as `arriving`
    outputs: Tensor  # (samples, channels of the output)


def can_sample(module: nn.Module) -> bool:
    """Linear layers and convolutions. A transposed convolution adds patches up at each output position."""
    return isinstance(module, (nn.Linear, _ConvNd)) and not isinstance(module, _ConvTransposeNd)


def sample_layer(layer: Layer, inputs: Tensor, outputs: Tensor, most: int, generator: torch.Generator) -> LayerSamples:
    """At most `most` positions of each picture, the same for all of the batch, drawn anew for each call.

    Args:
        inputs: `(batch, channels, *positions)` of a convolution, `(batch, *positions, channels)` of a linear layer.
        outputs: likewise.
    """
    if isinstance(layer, nn.Linear):
        tables = [features.reshape(len(features), -1, features.shape[-1]) for features in (inputs, outputs)]
        chosen = draw(tables[0].shape[1], most, generator)
        arriving, results = (table[:, chosen].flatten(0, 1) for table in tables)
        return LayerSamples(arriving, arriving, results)
    maps = inputs.flatten(2)
    arriving = maps[:, :, draw(maps.shape[2], most, generator)].transpose(1, 2).flatten(0, 1)
    shape = outputs.shape[2:]
    chosen = draw(math.prod(shape), most, generator)
    places: Any = (slice(None), slice(None), *torch.unravel_index(chosen, shape))
    patches = windows(layer, inputs)[places]  # (batch, channels, samples, *kernel)
    results = outputs[places].transpose(1, 2).flatten(0, 1)
    return LayerSamples(arriving, patches.transpose(1, 2).flatten(2).flatten(0, 1), results)


def draw(positions: int, most: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(positions, generator=generator)[:most]


def windows(layer: _ConvNd, inputs: Tensor) -> Tensor:
    """A view of the padded input as `(batch, channels, *output positions, *kernel)`: nothing is copied but the padding."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    view = F.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)
    geometry = zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)
    for place, (kernel, stride, dilation) in enumerate(geometry):
        view = view.unfold(2 + place, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
    return view


def full_matrix(layer: Layer) -> Tensor:
    """W `(channels of the output, channels * kernel positions)` in float64; of groups, the blocks on its diagonal."""
    groups = layer.groups if isinstance(layer, _ConvNd) else 1
    weight = layer.weight.detach().to("cpu", torch.float64).flatten(1)
    return torch.block_diag(*weight.chunk(groups))
