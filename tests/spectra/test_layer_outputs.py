"""Outputs of layers as tables of features."""

import pytest
import torch
from torch import nn

from ortho_kernels.spectra import LayerOutputs


def test_outputs_of_layers_are_features_of_pictures_or_positions():
    network = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Flatten(2), nn.Linear(16, 7))
    images = torch.randn(2, 3, 4, 4)
    seen = {}
    with LayerOutputs(network, ["0", "2"], seen.__setitem__):
        network(images)
    torch.testing.assert_close(seen["0"], network[0](images).mean((2, 3)))
    torch.testing.assert_close(seen["2"], network(images).mean(1))
    with LayerOutputs(network, ["0"], seen.__setitem__, positions=True):
        network(images)
    torch.testing.assert_close(seen["0"], network[0](images).permute(0, 2, 3, 1).reshape(-1, 5))
    assert not network[0]._forward_hooks
    with pytest.raises(ValueError, match="no module 'layer9'"):
        LayerOutputs(network, ["layer9"], seen.__setitem__)
