"""Strided convolutions of tiny maps, in bfloat16 on a CPU."""

import pytest
import torch
from torch import nn

from ortho_kernels.trainer.engine.small_maps import refuse_small_maps
from ortho_kernels.trainer.errors import TrainerError


@pytest.fixture
def network():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1, stride=2), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 8, 3, 2, padding=1)
    )
    refuse_small_maps(network)
    return network


def in_bfloat16(network, pixels):
    with torch.autocast("cpu", torch.bfloat16):
        return network(torch.randn(2, 3, pixels, 2 * pixels))


def test_a_map_smaller_than_the_stride_is_refused_by_name(network):
    with pytest.raises(TrainerError, match=r"^2 strides by 2 x 2 over a map of 1 x 2 pixels.*precision=32-true"):
        in_bfloat16(network, 2)


def test_larger_maps_float32_and_what_needs_no_gradient_are_right(network):
    in_bfloat16(network, 3)
    network(torch.randn(2, 3, 2, 2))
    with torch.no_grad():
        in_bfloat16(network, 2)


def test_a_run_with_tiny_crops_is_refused(run_tiny):
    """Local crops of 4 pixels are one pixel in front of the last stage."""
    with pytest.raises(TrainerError, match=r"layer4\.0\.conv1 strides by 2 x 2 over a map of 1 x 1 pixels"):
        run_tiny("method=dino", "trainer.precision=bf16-mixed")
