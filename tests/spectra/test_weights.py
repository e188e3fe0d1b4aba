"""Spectra of weights against numpy, in a network's own order and by patterns."""

import math

import numpy as np
import pytest
import torch
from narrow import narrow_resnet
from torch import nn
from torch.nn.utils import parametrizations

from ortho_kernels import OrthogonalityPenalty
from ortho_kernels.spectra import (
    WeightSpectrum,
    filter_eigenvalues,
    last_layers,
    operator_singular_values,
    singular_values,
    weight_spectra,
    weights_summary,
)


def test_filters_have_numpys_covariance():
    """A filter is a variable, and its entries are observations."""
    matrix = np.random.default_rng(0).standard_normal((4, 9)) + 2
    expected = np.linalg.eigvalsh(np.cov(matrix))[::-1].copy()
    torch.testing.assert_close(filter_eigenvalues(torch.from_numpy(matrix)), torch.from_numpy(expected))


def test_groups_are_matrices_of_their_own():
    layer = nn.Conv2d(4, 6, 3, groups=2)
    spectrum = weight_spectra(layer)["weight"]
    assert spectrum.shape == (2, 3, 18)
    for group, rows in enumerate(layer.weight.detach().double().flatten(1).split(3)):
        torch.testing.assert_close(spectrum.singular_values[group], torch.linalg.svdvals(rows))
        expected = torch.from_numpy(np.linalg.eigvalsh(np.cov(rows.numpy()))[::-1].copy())
        torch.testing.assert_close(spectrum.eigenvalues[group], expected)


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 5), (2, 3, 1, 1)])
@pytest.mark.parametrize("value", [0.0, 1.0, math.nan, math.inf])
def test_odd_weights_have_spectra(shape, value):
    spectrum = WeightSpectrum.of(torch.full(shape, value))
    assert spectrum.eigenvalues.shape == (1, shape[0])
    if not math.isfinite(value):
        assert spectrum.eigenvalues.isnan().all()
        assert math.isnan(spectrum.effective_rank)
        assert math.isnan(spectrum.stable_rank)
    else:
        assert spectrum.eigenvalues.abs().max() < 1e-12
        assert spectrum.stable_rank == pytest.approx(value)


def test_a_weight_that_layers_share_counts_once():
    """As in the penalty."""
    network = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5), nn.Linear(5, 2))
    network[2].weight = network[0].weight
    assert [*weight_spectra(network)] == ["0.weight", "3.weight"]
    assert [*weight_spectra(network)] == [name for name, *_ in OrthogonalityPenalty(network).weights()]
    assert last_layers(network, ["0", "3"]) == ["0.weight", "3.weight"]


def test_patterns_choose_layers_in_the_order_of_the_network():
    network = narrow_resnet(2)
    assert len(weight_spectra(network)) == 20
    assert [*weight_spectra(network, ["layer4.1", "*.0.conv2"])] == [
        *[f"layer{i}.0.conv2.weight" for i in range(1, 5)],
        *[f"layer4.1.conv{i}.weight" for i in (1, 2)],
    ]
    with pytest.raises(ValueError, match=r"no layer is called 'layer9'; there are conv1.weight, layer1"):
        weight_spectra(network, "layer9")


def test_attention_of_torch_is_covered():
    network = nn.TransformerEncoderLayer(8, 2, dim_feedforward=4)
    names = ["self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"]
    assert [*weight_spectra(network)] == names


def test_looking_moves_no_parametrization():
    layer = parametrizations.spectral_norm(nn.Linear(5, 4))
    before = [buffer.clone() for buffer in layer.buffers()]
    weight_spectra(layer)
    assert all(torch.equal(old, new) for old, new in zip(before, layer.buffers(), strict=True))


def test_a_convolution_is_measured_as_an_operator_of_the_size_that_it_sees():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2), nn.Flatten(), nn.LazyLinear(2)
    )
    images = torch.randn(5, 3, 7, 7)
    network(images)
    spectra = weight_spectra(network, images=images, operators=True)
    assert spectra["0.weight"].input_size == (7, 7)
    assert spectra["1.weight"].input_size == (8, 8)  # the next that the stride divides
    expected = operator_singular_values(network[1].weight, (8, 8), stride=2, groups=2)
    torch.testing.assert_close(spectra["1.weight"].operator, expected)
    assert spectra["3.weight"].operator is None


def test_folded_spectra_name_their_norm_and_layers_without_one_are_as_they_are():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).eval()
    network[1].weight.data = torch.tensor([1.0, 0.0, 2.0, 3.0])
    images = torch.randn(2, 3, 4, 4)
    spectra = weight_spectra(network, images=images, fold_batch_norm=True)
    scaled = (
        network[0].weight.detach().double().flatten(1) * torch.tensor([[1.0], [0.0], [2.0], [3.0]]) / (1 + 1e-5) ** 0.5
    )
    torch.testing.assert_close(spectra["0.weight"].singular_values[0], singular_values(scaled))
    assert (spectra["0.weight"].norm, spectra["2.weight"].norm) == ("1", None)
    with pytest.raises(ValueError, match=r"2.weight has no batch norm right behind it"):
        weight_spectra(network, "2", images=images, fold_batch_norm=True)


@pytest.mark.parametrize("option", ["fold_batch_norm", "operators"])
def test_options_that_need_images_say_so(option):
    with pytest.raises(ValueError, match=f"{option}=True needs images"):
        weight_spectra(nn.Linear(3, 2), **{option: True})


def test_layers_count_alike_or_by_their_singular_values():
    """A large layer of full rank beside a small one of rank 1."""
    full, one = torch.eye(6), torch.diag(torch.tensor([1.0, 0.0]))
    shares = weights_summary({"a": WeightSpectrum.of(full), "b": WeightSpectrum.of(one)})
    assert shares["effective_rank"]["by_layer"] == pytest.approx((1 + 1 / 2) / 2)
    assert shares["effective_rank"]["pooled"] == pytest.approx(7 / 8)
    assert shares["stable_rank"] == pytest.approx({"by_layer": 0.75, "pooled": 7 / 8})
    assert math.isnan(weights_summary({})["effective_rank"]["pooled"])
