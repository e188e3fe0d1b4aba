"""Everything at once, on any network: features against numpy, the table, and what is written."""

import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from narrow import narrow_resnet
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ortho_kernels.spectra import FeatureSpectrum, feature_spectra, rankme, spectra_of


@pytest.fixture
def network():
    torch.manual_seed(0)
    return narrow_resnet()


def test_features_have_numpys_spectra(network):
    images = torch.randn(300, 3, 32, 32)  # more than one batch
    spectra = feature_spectra(network, images, ["layer1"])
    with torch.no_grad():
        network.eval()
        maps = network.layer1(network.maxpool(network.relu(network.bn1(network.conv1(images)))))
        outputs = network(images)
    for features, spectrum in ((maps.mean((2, 3)), spectra["layer1"]), (outputs, spectra["representation"])):
        table = features.double().numpy()
        eigenvalues = np.linalg.eigvalsh(np.cov(table.T))[::-1]
        np.testing.assert_allclose(spectrum.eigenvalues, eigenvalues, rtol=1e-5, atol=1e-12)
        varies = table.std(0) > 0
        correlation = np.corrcoef(table.T[varies])
        np.testing.assert_allclose(spectrum.correlation[varies][:, varies], correlation, atol=1e-5)
        assert spectrum.rankme == pytest.approx(rankme(features), rel=1e-5)
        assert spectrum.stable_rank == pytest.approx(eigenvalues.sum() / eigenvalues[0], rel=1e-5)
        p = eigenvalues.clip(1e-300) / eigenvalues.sum()
        assert spectrum.effective_rank == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-5)


def test_streamed_rankme_is_that_of_the_table():
    features = torch.randn(200, 10) @ torch.diag(torch.logspace(0, -5, 10)) + 1
    network = nn.Identity()
    streamed = feature_spectra(network, DataLoader(TensorDataset(features, torch.zeros(200)), 64), [])["representation"]
    assert streamed.rankme == pytest.approx(rankme(features), rel=1e-6)
    assert FeatureSpectrum.of(features).rankme == rankme(features)


def test_three_lines(network, capsys):
    result = spectra_of(network, torch.randn(20, 3, 32, 32))
    print(result)
    said = capsys.readouterr().out
    assert re.search(r"layer4\.1\.conv2\.weight +64 x 576 ", said)
    assert "with equal weight a layer" in said
    assert [line.split()[0] for line in said.splitlines()[-5:]] == [
        "layer1",
        "layer2",
        "layer3",
        "layer4",
        "representation",
    ]
    assert "*" not in said
    assert [*result.stage_weights] == [f"layer{i}.1.conv2.weight" for i in range(1, 5)]


def test_what_is_written_is_json(network):
    content = spectra_of(
        network, iter([torch.randn(8, 3, 32, 32)] * 2), layers="layer1", fold_batch_norm=True, operators=True
    ).as_dict()
    content = json.loads(json.dumps(content))
    assert len(content["weights"]["layer1.0.conv1.weight"]) == 8
    assert {name: len(values) for name, values in content["stages"].items()} == {
        f"layer{i}": 4 * 2**i for i in range(1, 5)
    }
    assert [*content["stage_weights"]] == ["layer1.1.conv2.weight"]
    assert np.array(content["correlation"]).shape == (64, 64)
    assert content["folded"]["layer1.0.conv1.weight"] == "layer1.0.bn1"
    operator = content["operators"]["layer1.0.conv1.weight"]
    assert operator["input_size"] == [8, 8]
    assert len(operator["singular_values"]) == 256
    keys = ["rankme", "effective_rank", "stable_rank", "alpha_req", "lidar", "largest_correlation"]
    assert [*content["summary"]] == keys
    assert content["summary"]["lidar"] is None


def test_broken_weights_and_features_give_nan_and_a_table(network):
    network.layer3[0].conv1.weight.data[0, 0, 0, 0] = math.nan
    result = spectra_of(network, torch.randn(4, 3, 32, 32))
    assert "nan of 32" in str(result)
    assert math.isfinite(result.features["layer2"].effective_rank)
    assert all(math.isnan(value) for value in result.summary().values() if value is not None)


@pytest.mark.parametrize(
    ("network", "batches", "error", "said"),
    [
        (nn.Identity(), torch.ones(0, 3), ValueError, "no picture in the batches"),
        (nn.Identity(), [], ValueError, "no picture in the batches"),
        (nn.Identity(), [("a", "b")], TypeError, "a batch must be a tensor or begin with one, got str"),
    ],
)
def test_what_cant_be_measured_is_refused(network, batches, error, said):
    with pytest.raises(error, match=said):
        spectra_of(network, batches)


def test_of_a_tuple_the_first_entry_counts():
    assert spectra_of(nn.LSTM(3, 2), torch.ones(4, 5, 3)).representation.samples == 4


@pytest.mark.parametrize(
    ("returned", "error", "said"),
    [
        (lambda x: {"features": x}, TypeError, "the network must put out .*, a row a picture; got dict"),
        (lambda x: x[:, 0], TypeError, r"the network must put out .*, a row a picture; got shape \(4,\)"),
        (lambda x: x.sum(), TypeError, r"the network must put out .*, a row a picture; got shape \(\)"),
        (lambda x: x.T, ValueError, "must return a row a picture; it returned 3 for 4 pictures"),
    ],
)
def test_outputs_that_are_no_rows_of_pictures_are_refused(returned, error, said):
    class Returning(nn.Module):
        def forward(self, x):
            return returned(x)

    with pytest.raises(error, match=said):
        spectra_of(Returning(), torch.ones(4, 3))


def test_one_stage_may_be_a_name():
    network = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    assert [*spectra_of(network, torch.randn(4, 3), stages="0").features] == ["0", "representation"]


def test_a_stage_that_puts_out_no_table_is_named():
    class Scalar(nn.Module):
        def forward(self, x):
            return x.sum()

    network = nn.Sequential(Scalar(), nn.Flatten(0))
    with pytest.raises(TypeError, match=r"0 must put out maps, tokens or vectors, a row a picture; got shape \(\)"):
        feature_spectra(network, torch.ones(4, 3), ["0"])


def test_numpy_and_scipy_are_not_imported():
    code = "import sys, ortho_kernels.spectra; print(sorted({'scipy', 'matplotlib', 'torchvision'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
