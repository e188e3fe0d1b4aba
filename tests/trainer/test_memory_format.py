"""Channels last where it is safe."""

import pytest
import torch
from torch import nn

from ortho_kernels.trainer.backbones.resnet import ResNet18
from ortho_kernels.trainer.engine.memory_format import apply_memory_format, memory_format


@pytest.mark.parametrize(
    ("width", "asked", "expected"),
    [
        (4, True, torch.contiguous_format),  # torch's backward corrupts the heap there
        (8, True, torch.contiguous_format),  # with AVX-512, from pictures of 56 pixels on
        (16, True, torch.channels_last),
        (16, False, torch.contiguous_format),
    ],
)
def test_narrow_networks_stay_out_of_the_memory_format_that_breaks_them(width, asked, expected):
    assert memory_format(ResNet18(width=width).build(1, 8), asked) == expected


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("width", "asked"), [(16, True), (16, False), (8, True)])
def test_activations_lie_as_asked_and_sharded_weights_are_contiguous(width, asked, channels, sharded):
    encoder = ResNet18(width=width).build(channels, 16)
    apply_memory_format(encoder, asked, sharded)
    seen = []
    for layer in encoder.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _, inputs, output: seen.append(output))
    encoder(torch.randn(2, channels, 16, 16))
    expected = memory_format(encoder, asked)
    wide = [output for output in seen if output.shape[-1] > 1]  # one pixel lies in both ways
    assert len(wide) > 10
    assert all(output.is_contiguous(memory_format=expected) for output in wide)
    if sharded:
        assert all(weight.is_contiguous() for weight in encoder.parameters())
