"""Channels last where it is safe."""

import pytest
import torch

from ortho_kernels.trainer.backbones.resnet import ResNet18Settings, build_resnet
from ortho_kernels.trainer.memory_format import memory_format


@pytest.mark.parametrize(
    ("width", "asked", "expected"),
    [
        (4, True, torch.contiguous_format),  # torch's backward corrupts the heap there
        (8, True, torch.channels_last),
        (8, False, torch.contiguous_format),
    ],
)
def test_narrow_networks_stay_out_of_the_memory_format_that_breaks_them(width, asked, expected):
    assert memory_format(build_resnet(ResNet18Settings(width=width), 1, 8), asked) == expected
