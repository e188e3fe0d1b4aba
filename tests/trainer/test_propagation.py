"""The covariance of features, layer by layer, against loops that are written out; and the command from words to files."""

import csv
import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

from ortho_kernels import srip
from ortho_kernels.trainer.backbones import BACKBONES, build_encoder
from ortho_kernels.trainer.data import MemoryImages
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.probes.propagation import (
    Inputs,
    PropagationSettings,
    Whitening,
    measure,
    optimize_,
    orthogonalize_,
    propagate,
    residual_norms,
    whiteness,
)
from ortho_kernels.trainer.probes.propagation.layer_samples import full_matrix, sample_layer
from ortho_kernels.trainer.propagation import Settings, main
from ortho_kernels.trainer.report.plots.propagation import by_role
from ortho_kernels.trainer.report.propagation_files import write_propagation

ALL = 10_000  # positions: every one


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def covariance(table):
    """Of (samples, numbers), by a loop over the samples."""
    table = np.asarray(table, dtype=np.float64)
    mean = sum(table) / len(table)
    return sum(np.outer(row - mean, row - mean) for row in table) / (len(table) - 1)


def patches_of(layer, images):
    """Every patch of every picture, one after the other, by loops over pictures and positions."""
    (kh, kw), (sy, sx), (py, px), (dy, dx) = layer.kernel_size, layer.stride, layer.padding, layer.dilation
    padded = np.pad(np.asarray(images), ((0, 0), (0, 0), (py, py), (px, px)))
    height = (padded.shape[2] - dy * (kh - 1) - 1) // sy + 1
    width = (padded.shape[3] - dx * (kw - 1) - 1) // sx + 1
    return [
        picture[:, y * sy : y * sy + dy * (kh - 1) + 1 : dy, x * sx : x * sx + dx * (kw - 1) + 1 : dx].ravel()
        for picture in padded
        for y in range(height)
        for x in range(width)
    ]


def measured(layer, inputs, **options):
    """A network of this layer alone, with every position."""
    network = nn.Sequential(layer, nn.Flatten())
    options = {"positions": ALL, "patch_numbers": 1000, **options}
    return measure(network, ["0"], lambda: [inputs], **options).layers[0]


def distance(C):
    return np.linalg.norm(C / np.diag(C).mean() - np.eye(len(C))) / math.sqrt(len(C))


# The law of one layer


def test_law_of_a_linear_layer(generator):
    layer = nn.Linear(5, 3).double()
    mixed = (
        torch.randn(200, 5, generator=generator, dtype=torch.float64) @ torch.randn(5, 5, generator=generator).double()
    )
    W, S = layer.weight.detach().numpy(), covariance(mixed)
    C = covariance(mixed.numpy() @ W.T + layer.bias.detach().numpy())
    np.testing.assert_allclose(W @ S @ W.T, C, rtol=0, atol=1e-10)
    found = measured(layer, mixed)
    assert found.law < 1e-10
    assert found.output.distance == pytest.approx(distance(C), abs=1e-10)
    assert found.arriving.distance == pytest.approx(distance(S), abs=1e-10)
    assert found.patches == pytest.approx(distance(S), abs=1e-10)
    assert found.if_white == pytest.approx(distance(W @ W.T), abs=1e-10)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), ((1, 2), (2, 1), (2, 1))])
def test_law_of_a_convolution(generator, stride, padding, dilation, groups):
    layer = nn.Conv2d(4, 6, (3, 2), stride, padding, dilation, groups).double()
    images = torch.randn(12, 4, 9, 8, generator=generator, dtype=torch.float64).cumsum(3)  # neighbors are correlated
    W = np.zeros((6, 24))
    for row in range(6):
        own = layer.weight[row].detach().numpy().ravel()
        first = row // (6 // groups) * len(own)
        W[row, first : first + len(own)] = own
    patches = patches_of(layer, images)
    S, C = covariance(patches), covariance(np.asarray(patches) @ W.T)
    np.testing.assert_array_equal(full_matrix(layer), W)
    outputs = layer(images).detach().transpose(1, 3).transpose(1, 2).reshape(-1, 6)
    np.testing.assert_allclose(covariance(outputs), W @ S @ W.T, atol=1e-10)
    found = measured(layer, images)
    assert found.law < 1e-10
    assert found.patches == pytest.approx(distance(S), abs=1e-10)
    assert found.output.distance == pytest.approx(distance(C), abs=1e-10)
    assert found.if_white == pytest.approx(distance(W @ W.T), abs=1e-10)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "circular"])
@pytest.mark.parametrize("padding", [1, "same"])
def test_patches_make_the_outputs_at_the_positions_that_are_drawn(generator, mode, padding):
    layer = nn.Conv2d(3, 4, 3, padding=padding, padding_mode=mode).double()
    images = torch.randn(2, 3, 7, 7, generator=generator, dtype=torch.float64)
    samples = sample_layer(layer, images, layer(images), 5, generator)
    assert samples.outputs.shape == (10, 4)
    made = samples.patches @ full_matrix(layer).T + layer.bias
    torch.testing.assert_close(made, samples.outputs)


def test_convolutions_of_one_dimension_and_linear_layers_of_tokens(generator):
    signal = torch.randn(2, 3, 11, generator=generator)
    layer = nn.Conv1d(3, 4, 5, stride=2)
    samples = sample_layer(layer, signal, layer(signal), ALL, generator)
    torch.testing.assert_close(samples.patches @ full_matrix(layer).T.float() + layer.bias, samples.outputs)
    tokens = torch.randn(2, 4, 5, 3, generator=generator)  # channels last, as in ConvNeXt
    linear = nn.Linear(3, 6)
    samples = sample_layer(linear, tokens, linear(tokens), 7, generator)
    assert (samples.arriving.shape, samples.outputs.shape) == ((14, 3), (14, 6))
    torch.testing.assert_close(linear(samples.arriving), samples.outputs)


def test_large_patches_have_no_covariance(generator):
    found = measured(nn.Conv2d(4, 6, 3), torch.randn(20, 4, 6, 6, generator=generator), patch_numbers=35)
    assert (found.patches, found.law) == (None, None)
    assert found.arriving.dimensions == 4


# Whiteness


def test_whiteness_of_eigenvalues():
    values = torch.tensor([4.0, 2.0, 1.0, 1.0], dtype=torch.float64)
    found = whiteness(values, 101)
    assert found.distance == pytest.approx(np.std([4, 2, 1, 1]) / 2)
    shares = np.array([4, 2, 1, 1]) / 8
    assert found.rank_share == pytest.approx(np.exp(-(shares * np.log(shares)).sum()) / 4)
    assert (found.first_share, found.floor) == (0.5, pytest.approx(0.2))
    assert found.eigenvalues == [1.0, 0.5, 0.25, 0.25]
    assert len(whiteness(torch.ones(1000), 5).eigenvalues) == 64


@pytest.mark.parametrize("values", [[0.0, 0.0], [math.nan, math.nan]])
def test_features_that_do_not_vary_or_are_not_finite_have_no_whiteness(values):
    found = whiteness(torch.tensor(values, dtype=torch.float64), 10)
    assert math.isnan(found.distance)
    assert math.isnan(found.first_share)


def test_chance_distance_of_white_features(generator):
    features = torch.randn(2000, 50, generator=generator)
    found = measured(nn.Linear(50, 4), features).arriving
    assert found.distance == pytest.approx(found.floor, rel=0.1)


# Whitened inputs


def test_whitened_pictures_have_the_identity_as_covariance(generator):
    pictures = torch.randn(300, 2, 4, 4, generator=generator, dtype=torch.float64).cumsum(2).cumsum(3) + 3
    whitening = Whitening(pictures.split(77))
    white = whitening(pictures)
    assert white.shape == pictures.shape
    np.testing.assert_allclose(covariance(white.flatten(1)), np.eye(32), atol=1e-10)
    assert whitening.rank == 32
    # ZCA's matrix is symmetric, so the covariance of white and given pictures is the root of theirs.
    C = covariance(pictures.flatten(1))
    values, vectors = np.linalg.eigh(C)
    both = covariance(torch.cat([white.flatten(1), pictures.flatten(1)], 1))[:32, 32:]
    np.testing.assert_allclose(both, (vectors * np.sqrt(values)) @ vectors.T, atol=1e-9)


def test_pixels_that_never_change_stay_at_zero(generator):
    pictures = torch.randn(100, 1, 3, 3, generator=generator)
    pictures[:, :, 0, 0] = 7.0
    whitening = Whitening([pictures])
    assert whitening.rank == 8
    expected = np.eye(9)
    expected[0, 0] = 0
    np.testing.assert_allclose(covariance(whitening(pictures).flatten(1)), expected, atol=1e-5)


def test_whitening_takes_more_pictures_than_numbers(generator):
    with pytest.raises(TrainerError, match=r"48 numbers takes more than 48 of them; got 40. Raise whitening"):
        Whitening([torch.randn(40, 3, 4, 4, generator=generator)])
    with pytest.raises(TrainerError, match="too large to whiten"):
        Whitening([torch.zeros(1, 3, 128, 128)])


def test_orthogonal_weights_carry_white_inputs_to_the_first_output_and_no_further(generator):
    """Proposition 1: exact for patches that don't overlap. Behind a ReLU it is over."""
    network = nn.Sequential(
        nn.Conv2d(3, 40, 4, 4), nn.Flatten(2), Transposed(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 10), Mean()
    )
    orthogonalize_(network)
    pictures = torch.randn(500, 3, 8, 8, generator=generator).cumsum(2)
    whitening = Whitening([pictures])
    found = measure(network, ["0", "3", "5"], lambda: [whitening(pictures)], positions=ALL, patch_numbers=1000)
    first, second, third = found.layers
    # Pooled over the four positions of pictures that are white in whole, patches are white.
    assert first.patches < 1e-5
    assert first.if_white < 1e-6
    assert first.output.distance < 1e-5
    assert second.output.distance < 1e-5
    assert third.arriving.distance > 0.1
    assert third.output.distance > 0.05
    assert third.if_white < 1e-6


class Transposed(nn.Module):
    def forward(self, maps):
        return maps.transpose(1, 2)


class Mean(nn.Module):
    def forward(self, tokens):
        return tokens.mean(1)


# Weights


@pytest.mark.parametrize(("shape", "groups"), [((6, 4), 1), ((8, 3, 3, 3), 1), ((8, 2, 3, 3), 4)])
def test_sigma_is_numpys_and_the_estimate_is_srips(generator, shape, groups):
    weight = torch.randn(shape, generator=generator)
    rows = shape[0] // groups
    matrices = weight.double().numpy().reshape(groups, rows, -1)
    order = min(matrices.shape[1:])
    grams = [W @ W.T if len(W) <= W.shape[1] else W.T @ W for W in matrices]
    R = [G - np.eye(order) for G in grams]
    starts = [torch.randn(groups, order, generator=generator) for _ in range(3)]
    found = residual_norms("layer", weight, groups, starts, warm=starts[0], iterations=2)
    assert found.sigma == pytest.approx(max(np.linalg.norm(each, 2) for each in R), rel=1e-12)
    assert found.so_per_row == pytest.approx(sum((each**2).sum() for each in R) / (groups * order), rel=1e-12)
    values = [srip([weight], groups=groups, start=[start], reduction="none").max().item() for start in starts]
    assert found.estimates == values
    assert found.warm == values[0]
    for start, value in zip(starts, values, strict=True):  # the paper's formula
        norms = []
        for each, v in zip(R, start.double().numpy(), strict=True):
            u = each @ v
            norms.append(np.linalg.norm(each @ u) / np.linalg.norm(u))
        assert value == pytest.approx(max(norms), rel=1e-4)


def test_the_nearest_orthogonal_weight(generator):
    layer = nn.Conv2d(4, 6, 3, groups=2)
    before = layer.weight.detach().double().numpy().reshape(2, 3, -1)
    orthogonalize_(nn.Sequential(layer))
    for W, Q in zip(before, layer.weight.detach().numpy().reshape(2, 3, -1), strict=True):
        U, _, Vh = np.linalg.svd(W, full_matrices=False)
        np.testing.assert_allclose(Q, U @ Vh, atol=1e-6)


def test_computed_weights_are_not_replaced():
    network = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))
    with pytest.raises(TrainerError, match="computed from other parameters"):
        orthogonalize_(network)


def test_steps_on_the_penalty_alone():
    layer = nn.Linear(4, 3, bias=False)
    s = np.linalg.svd(layer.weight.detach().double().numpy(), compute_uv=False)
    optimize_(nn.Sequential(layer), steps=3, rate=0.05)
    for _ in range(3):
        s = s - 4 * 0.05 * (s**2 - 1) * s
    found = np.linalg.svd(layer.weight.detach().numpy(), compute_uv=False)
    np.testing.assert_allclose(sorted(found), sorted(abs(s)), rtol=1e-5)
    with pytest.raises(TrainerError, match=r"diverged in 0.weight: give a lower rate than 1e\+20"):
        optimize_(nn.Sequential(nn.Linear(4, 3)), steps=9, rate=1e20)


# Whole networks


def images(count, channels=1, size=8):
    pixels = torch.randint(256, (count, channels, size, size), generator=torch.Generator().manual_seed(1))
    return MemoryImages(pixels.to(torch.uint8), torch.zeros(count, dtype=torch.long))


def inputs(count=130, kinds=("noise", "whitened", "real")):
    return Inputs(images(count), lambda pixels: pixels.float() / 255, list(kinds), count, count, seed=0)


def test_inputs_are_the_same_at_each_call():
    given = inputs()
    for kind in ("noise", "whitened", "real"):
        first, second = (torch.cat(list(given.batches(kind))) for _ in range(2))
        assert torch.equal(first, second)
        assert first.shape == (130, 1, 8, 8)
    white = torch.cat(list(given.batches("whitened"))).flatten(1)
    np.testing.assert_allclose(covariance(white), np.eye(64), atol=1e-4)
    assert given.facts() == {"pictures": 130, "shape": [1, 8, 8], "whitened_by": 130, "whitened_directions": 64}


def test_fewer_pictures_go_through_than_whiten():
    given = Inputs(images(90), lambda pixels: pixels.float(), ["whitened"], 20, 80, seed=0)
    assert (given.pictures, given.fitted) == (20, 80)


@pytest.mark.parametrize(("name", "options"), [("resnet18", {"width": 2}), ("vit_tiny", {"depth": 1, "heads": 1})])
def test_networks_are_measured_layer_by_layer_in_the_order_of_calls(name, options):
    torch.manual_seed(0)
    encoder = build_encoder(BACKBONES[name](**options), 1, 8)
    found = propagate(encoder, name, "random", inputs(), PropagationSettings(starts=2))
    names = [layer.layer for layer in found.measurements["real"].layers]
    first = "conv1" if name == "resnet18" else "network.patch_embed.proj"
    assert names[0] == first
    assert len(names) == {"resnet18": 20, "vit_tiny": 5}[name]
    assert {f"{layer}.weight" for layer in names} == {row.layer for row in found.residuals}
    assert all(layer.law < 1e-5 for measured in found.measurements.values() for layer in measured.layers)
    assert found.measurements["noise"].layers[0].arriving.distance < 0.05
    assert found.measurements["whitened"].representation.dimensions == encoder.features
    assert found.not_measured == {}


def test_batch_norm_takes_its_statistics_of_the_inputs():
    norm = nn.BatchNorm1d(3)
    network = nn.Sequential(nn.Linear(3, 3), norm, nn.Linear(3, 2))
    batch = 5 * torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) + 7
    measure(network, ["0", "2"], lambda: [batch], positions=1, patch_numbers=10)
    outputs = network[0](batch).detach()
    torch.testing.assert_close(norm.running_mean, outputs.mean(0))
    torch.testing.assert_close(norm.running_var, outputs.var(0))
    assert (norm.momentum, norm.training) == (0.1, False)


def test_layers_that_are_not_called_and_transposed_convolutions_are_named():
    class Strange(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Conv2d(1, 4, 3), nn.Linear(4, 4)
            self.up, self.attention = nn.ConvTranspose2d(4, 4, 2), nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, images):
            tokens = self.up(self.used(images)).flatten(2).transpose(1, 2)
            return self.attention(tokens, tokens, tokens)[0].mean(1)

    found = propagate(Strange(), "strange", "random", inputs(kinds=["real"]), PropagationSettings(starts=1))
    assert [layer.layer for layer in found.measurements["real"].layers] == ["used"]
    assert found.not_measured.keys() == {"idle", "up", "attention", "attention.out_proj"}
    assert found.not_measured["idle"] == "it was not called"


def test_weights_with_nan_are_refused():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    nn.init.constant_(network[1].weight, math.nan)
    with pytest.raises(TrainerError, match=r"mine: 1.weight holds NaN or Inf"):
        propagate(network, "n", "mine", inputs(kinds=["real"]), PropagationSettings())


# The command

SMALL = ["data=digits", "pictures=80", "whitening=200", "starts=2", "positions=4", "inputs=whitened,real"]


@pytest.fixture
def no_figures(monkeypatch):
    """They take longer than all else."""
    for name in ("picture", "render"):
        monkeypatch.setattr(f"ortho_kernels.trainer.report.propagation_files.{name}", lambda content: "")


def test_random_networks_from_words_to_files(tmp_path, capsys):
    words = ["backbone=resnet18,vit_tiny", "backbone_options={width: 2, depth: 1}", "weights=random,orthogonal"]
    main([*words, *SMALL, f"output={tmp_path / 'out'}"])
    said = capsys.readouterr().out
    assert "Report: " in said
    content = json.loads((tmp_path / "out" / "propagation.json").read_text())
    assert [(each["architecture"], each["weights"]) for each in content["networks"]] == [
        ("resnet18", "random"), ("resnet18", "orthogonal"), ("vit_tiny", "random"), ("vit_tiny", "orthogonal"),
    ]  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "out" / "propagation.csv").open()))
    assert len(rows) == 2 * 2 * (20 + 1) + 2 * 2 * (5 + 1)
    orthogonal = [row for row in rows if row["weights"] == "orthogonal" and row["layer"] != "representation"]
    assert all(float(row["sigma"]) < 1e-5 for row in orthogonal)
    page = (tmp_path / "out" / "propagation.html").read_text()
    assert "orthogonal is nearer to white than random behind" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    picture = (tmp_path / "out" / "propagation.svg").read_text()
    assert picture.startswith("<svg")
    assert "prefers-color-scheme: dark" in picture


def test_finished_runs_are_overlaid(run_tiny, no_figures, tmp_path):
    baseline = run_tiny("method=simclr", "penalty=so", "penalty.gamma=0", "backbone.width=2")
    regularized = run_tiny(
        "method=simclr", "penalty=srip", "penalty.gamma=1e-3", "penalty.warm_start=true", "backbone.width=2"
    )
    main([str(baseline), str(regularized), *SMALL[1:], "inputs=real", f"output={tmp_path / 'out'}"])
    content = json.loads((tmp_path / "out" / "propagation.json").read_text())
    first, second = content["networks"]
    assert first["architecture"] == second["architecture"] == "resnet18"
    assert first["weights"] != second["weights"]
    assert all(row["warm"] is None for row in first["residuals"])
    assert all(row["warm"] > 0 for row in second["residuals"])
    assert content["data"] == "digits"
    with pytest.raises(TrainerError, match="no teacher"):
        main([str(baseline), "network=teacher"])


def test_runs_are_left_as_they_are(run_tiny, no_figures, tmp_path):
    run = run_tiny("method=simclr", "penalty=so", "backbone.width=2")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    main([str(run), *SMALL[1:], "inputs=real", f"output={tmp_path / 'out'}"])
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "Give the folders of finished runs, or backbone=resnet18,vit_tiny"),
        (["backbone=resnet81"], "Did you mean resnet18?"),
        (["backbone=resnet18", "pictures=1"], "pictures must be at least 2; got 1"),
        (["backbone=resnet18", "inputs=reel"], "inputs must be one of noise, whitened, real; got reel"),
        (["backbone=resnet18", "picture=5"], "Did you mean pictures?"),
        (["backbone=resnet18", "backbone_options.depth=2"], "resnet18 has no option depth"),
        (["backbone=resnet18", "data=digits", "data_options.sice=8"], "size"),
        (["backbone=resnet18", "network=teacher"], "network=teacher is of runs"),
        (
            ["backbone=resnet18", "backbone_options.width=2", "data=digits", "whitening=60", "pictures=60"],
            "takes more than 64 of them; got 60",
        ),
        (["nowhere"], "There is no nowhere"),
        (["run", "weights=random,orthogonal"], "weights=random,orthogonal has no effect here: .* weights of their own"),
        (["run", "backbone_options.width=2"], "backbone_options=.* has no effect here: .* weights of their own"),
        (["run", "steps=9"], "steps=9 has no effect here: .* weights of their own"),
        (["backbone=resnet18", "weights=random", "rate=0.1"], "rate=0.1 has no effect here: .* weights=optimized"),
    ],
)
def test_wrong_words_say_what_to_do(words, expected, tmp_path):
    with pytest.raises(TrainerError, match=expected):
        main([*words, f"output={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_place_for_the_output(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(TrainerError, match=r"output=.*file: that is a file\. Give the name of a folder"):
        main(["backbone=resnet18", f"output={tmp_path / 'file'}"])
    assert (tmp_path / "file").read_text() == "mine"


def test_runs_of_different_pictures_need_data(run_tiny, tmp_path):
    runs = [run_tiny("method=simclr", "backbone.width=2", word) for word in ("data.size=8", "data.size=9")]
    with pytest.raises(TrainerError, match="name the pictures that both are to see by data=NAME"):
        main([*map(str, runs), f"output={tmp_path / 'out'}"])


def test_a_run_that_is_still_training_is_refused(run_tiny, tmp_path):
    run = run_tiny("method=simclr", "backbone.width=2")
    (run / "results.json").unlink()
    with pytest.raises(TrainerError, match="has not finished"):
        main([str(run), f"output={tmp_path / 'out'}"])


def test_an_exported_encoder_needs_data(run_tiny, no_figures, tmp_path):
    from ortho_kernels.trainer.export import export_encoder

    file = tmp_path / "encoder.safetensors"
    export_encoder(run_tiny("method=simclr", "backbone.width=2"), file)
    with pytest.raises(TrainerError, match="name the pictures by data="):
        main([str(file), f"output={tmp_path / 'out'}"])
    main([str(file), *SMALL, f"output={tmp_path / 'out'}"])
    content = json.loads((tmp_path / "out" / "propagation.json").read_text())
    assert content["networks"][0]["weights"] == "encoder"


def test_settings_have_a_help(capsys):
    main(["--help"])
    said = capsys.readouterr().out
    assert "backbone_options" in said
    assert all(name in said for name in asdict(Settings()))


def test_layers_behind_which_nothing_varies_are_gaps(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Linear(4, 3))
    nn.init.zeros_(network[1].weight)
    given = inputs(kinds=["real"])
    found = propagate(network, "flat", "zero", given, PropagationSettings(starts=1))
    content = {
        "data": "noise",
        "inputs": [given.facts()],
        "settings": {},
        "networks": [asdict(found)],
        "machine": {},
    }
    page = write_propagation(tmp_path, content)
    written = json.loads((tmp_path / "propagation.json").read_text())
    assert written["networks"][0]["measurements"]["real"]["layers"][0]["output"]["distance"] is None
    first, *_ = csv.DictReader((tmp_path / "propagation.csv").open())
    assert (first["layer"], first["distance"], float(first["sigma"])) == ("1", "", 1.0)
    assert "<td>&ndash;</td>" in page.read_text()


def test_lines_of_a_figure_join_layers_of_one_role():
    layers = ["patch", "blocks.0.fc1", "blocks.0.fc2", "blocks.1.fc1", "blocks.1.fc2"]
    assert by_role(layers) == [0, 1, 3, None, 2, 4, None]
    layers = ["conv1", "layer1.0.conv1", "layer1.1.conv1", "head"]
    assert by_role(layers) == [0, 1, 2, None, 3, None]
