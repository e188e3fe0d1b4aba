"""Outputs of layers as tables of features."""

import pytest
import torch
from torch import nn

from ortho_kernels.spectra import LayerOutputs, spectra_of


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


@pytest.mark.parametrize("layer", [nn.Conv1d(3, 5, 3), nn.ConvTranspose1d(3, 5, 3)])
def test_one_dimensional_maps_have_their_channels_first(layer):
    network = nn.Sequential(nn.Sequential(layer, nn.BatchNorm1d(5)), nn.ReLU()).eval()
    series = torch.randn(7, 3, 9)
    seen = {}
    with LayerOutputs(network, ["0", "0.0"], seen.__setitem__):
        network(series)
    torch.testing.assert_close(seen["0.0"], layer(series).mean(2))
    torch.testing.assert_close(seen["0"], network[0](series).mean(2))
    with LayerOutputs(network, ["0"], seen.__setitem__, positions=True):
        network(series)
    torch.testing.assert_close(seen["0"], network[0](series).permute(0, 2, 1).reshape(-1, 5))
    expected = torch.linalg.eigvalsh(network(series).detach().double().mean(2).T.cov()).flip(0)
    torch.testing.assert_close(spectra_of(network, series).representation.eigenvalues, expected)


def test_tokens_behind_a_one_dimensional_convolution_have_their_channels_last():
    network = nn.Sequential(nn.Conv1d(3, 5, 1), nn.Linear(9, 4))
    series = torch.randn(7, 3, 9)
    expected = torch.linalg.eigvalsh(network(series).detach().double().mean(1).T.cov()).flip(0)
    torch.testing.assert_close(spectra_of(network, series).representation.eigenvalues, expected)
