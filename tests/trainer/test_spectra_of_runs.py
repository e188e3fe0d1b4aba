"""What a run records of its encoder's insides, and the command that measures it again."""

import json
import math
import re
import shutil

import numpy as np
import pytest
import torch
from tiny import tiny_words
from torch import nn

from ortho_kernels.spectra import effective_rank, rankme, representation_eigenvalues, singular_values
from ortho_kernels.trainer.config import load_config
from ortho_kernels.trainer.data.images import MemoryImages
from ortho_kernels.trainer.data.preprocess import Preprocess
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.export import export_encoder
from ortho_kernels.trainer.probes.augmented import Augmentation
from ortho_kernels.trainer.probes.features import extract
from ortho_kernels.trainer.probes.spectra import pictures_looked_at
from ortho_kernels.trainer.runs.pretrain import planned_views, pretrain
from ortho_kernels.trainer.runs.trained import load_trained
from ortho_kernels.trainer.spectra import main

STAGES = ["layer1", "layer2", "layer3", "layer4"]


def read(path):
    return json.loads(path.read_text())


def test_a_run_records_its_spectra_and_the_old_figures_are_the_same_to_the_bit(run_tiny):
    folder = run_tiny("method=simclr", "penalty=so")
    spectra, results = read(folder / "spectra.json"), read(folder / "results.json")
    trained = load_trained(folder)
    images = pictures_looked_at(trained.splits(), 40, 0)
    features = extract(trained.encoder, trained.preprocess.view, images, 500).features
    eigenvalues = representation_eigenvalues(features)
    assert spectra["representation"] == eigenvalues.tolist()
    assert results["representation_effective_rank"] == effective_rank(eigenvalues)
    assert results["representation_rankme"] == rankme(features) == spectra["summary"]["rankme"]
    for name, weight in trained.encoder.named_parameters():
        if weight.dim() > 1:
            assert spectra["weights"].pop(name) == singular_values(weight.flatten(1)).tolist()
    assert not spectra["weights"]

    table = features.double().numpy()
    varies = table.std(0) > 0
    correlation = np.abs(np.corrcoef(table.T[varies])) - np.eye(varies.sum())
    assert results["representation_largest_correlation"] == pytest.approx(correlation.max())
    variances = np.linalg.eigvalsh(np.cov(table.T))
    assert results["representation_stable_rank"] == pytest.approx(variances.sum() / variances.max())
    assert results["representation_alpha_req"] == spectra["summary"]["alpha_req"] > 0
    assert 1 <= results["representation_lidar"] <= results["representation_dimensions"]
    assert {name: len(values) for name, values in spectra["stages"].items()} == dict(
        zip(STAGES, [4, 8, 16, 32], strict=True)
    )
    assert [*spectra["stage_weights"]] == [f"{stage}.1.conv2.weight" for stage in STAGES]
    np.testing.assert_allclose(spectra["stages"]["layer4"], spectra["representation"], rtol=1e-3, atol=1e-9)
    last = trained.encoder.layer2[1].conv2.weight.detach().flatten(1).double().numpy()
    expected = np.linalg.eigvalsh(np.cov(last))[::-1]
    np.testing.assert_allclose(spectra["stage_weights"]["layer2.1.conv2.weight"], expected)
    assert np.array(spectra["correlation"]).shape == (32, 32)


@pytest.mark.parametrize(
    ("words", "stages"),
    [
        (["backbone=vit_tiny", "backbone.patch=4"], []),  # of one block there are no quarters
        (["method=swav", "method.prototypes=5"], STAGES),
        (["evaluation.data=none"], STAGES),
        (["trainer.precision=64-true"], STAGES),
    ],
)
def test_other_networks_views_and_pictures(run_tiny, capsys, words, stages):
    folder = run_tiny(*words)
    spectra = read(folder / "spectra.json")
    assert [*spectra["stages"]] == stages
    assert len(spectra["stage_weights"]) == len(stages)
    assert math.isfinite(spectra["summary"]["lidar"])
    assert ("No spectra of stages: no stages are known of" in capsys.readouterr().out) == (not stages)


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    """Trained once; tests look at copies."""
    runs = tmp_path_factory.mktemp("trained")
    words = ["method=byol", "penalty=so", "evaluation.network=student"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ortho_kernels.trainer.runs.pretrain.write_report", lambda path, runs: None)
        return pretrain(load_config([*tiny_words(*words), f"runs={runs}", *words]))


@pytest.fixture
def run(trained_run, tmp_path):
    return shutil.copytree(trained_run, tmp_path / trained_run.name)


def test_the_command_gives_what_the_run_has_recorded(run, capsys):
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    main([str(run)])
    said = capsys.readouterr().out
    assert re.search(r"layer4.1.conv2.weight +32 x 288 ", said)
    assert re.search(r"representation +40 ", said)
    assert f"{run}/evaluations/spectra.json" in said
    again, recorded = read(run / "evaluations" / "spectra.json"), read(run / "spectra.json")
    for key in ("weights", "representation", "stages", "stage_weights", "correlation", "summary"):
        assert again[key] == recorded[key], key
    assert (again["data"], again["network"], again["step"], again["images"]) == ("digits", "student", 2, 40)
    assert before == {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["network=student", "data=digits", "device=cpu", "batch_size=7"], "spectra"),
        (["network=teacher"], "spectra-teacher"),
        (["fold_batch_norm=true", "operators=true"], "spectra-fold_batch_norm-operators"),
        (["images=20", "seed=3"], "spectra-images20-seed3"),
        (["layers=layer1,layer2", "stages=layer1"], "spectra-layerslayer1,layer2-stageslayer1"),
    ],
)
def test_the_file_is_named_by_what_differs(run, words, name, capsys):
    main([str(run), *words])
    assert [path.stem for path in (run / "evaluations").iterdir()] == [name]
    content = read(run / "evaluations" / f"{name}.json")
    assert ("folded" in content) == ("operators" in content) == ("fold" in name)
    if "layers" in name:
        assert len(content["weights"]) == 9
        assert [*content["stages"]] == ["layer1"]


def test_folded_spectra_are_those_of_weights_times_scales(run):
    main([str(run), "fold_batch_norm=true"])
    content = read(run / "evaluations" / "spectra-fold_batch_norm.json")
    encoder = load_trained(run).encoder
    block = encoder.layer3[1]
    scale = block.bn2.weight.double() / (block.bn2.running_var.double() + block.bn2.eps).sqrt()
    folded = (block.conv2.weight.double().flatten(1) * scale[:, None]).detach()
    np.testing.assert_allclose(content["weights"]["layer3.1.conv2.weight"], torch.linalg.svdvals(folded), rtol=1e-9)
    expected = np.linalg.eigvalsh(np.cov(folded.numpy()))[::-1]
    np.testing.assert_allclose(content["stage_weights"]["layer3.1.conv2.weight"], expected, rtol=1e-9, atol=1e-15)
    assert content["folded"]["layer3.1.conv2.weight"] == "layer3.1.bn2"
    assert read(run / "spectra.json")["weights"]["layer3.1.conv2.weight"] != content["weights"]["layer3.1.conv2.weight"]


def test_a_file_needs_data_and_has_no_views(run, tmp_path, capsys):
    file = tmp_path / "encoder.safetensors"
    export_encoder(run, file)
    with pytest.raises(TrainerError, match=r"encoder.safetensors .*name a data set, such as data=cifar10"):
        main([str(file)])
    main([str(file), "data=digits", "images=30"])
    content = read(tmp_path / "encoder.evaluations" / "spectra-digits-images30.json")
    assert content["summary"]["lidar"] is None
    assert content["images"] == 30
    assert "LiDAR" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["layers=layer9"], "no layer is called 'layer9'"),
        (["stages=nowhere"], "the network has no module 'nowhere'"),
        (["fold_batch_norm=true", "layers=flatten"], "no layer is called 'flatten'"),
        (["images=1"], "images must be at least 2; got 1"),
        (["network=ema"], "has no ema"),
        (["fold_batchnorm=true"], "Did you mean fold_batch_norm?"),
        (["data_options.root=x"], "give data too"),
    ],
)
def test_wrong_words_write_nothing(run, words, said):
    with pytest.raises(TrainerError) as caught:
        main([str(run), *words])
    assert said in str(caught.value)
    assert not (run / "evaluations").exists()


def test_a_run_that_still_trains_and_no_run_are_refused(run, tmp_path):
    with pytest.raises(TrainerError, match="Give the folder of a finished run"):
        main([])
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "results.json").unlink()
    with pytest.raises(TrainerError, match="has not finished"):
        main([str(copy)])
    before = sorted(run.rglob("*"))
    with pytest.raises(TrainerError, match="There is no nowhere"):  # before the first is measured
        main([str(run), "nowhere", "seed=9"])
    assert sorted(run.rglob("*")) == before


def test_help_lists_the_options(capsys):
    main(["--help"])
    said = capsys.readouterr().out
    assert "fold_batch_norm" in said
    assert "python -m ortho_kernels.trainer.spectra RUN" in said


class Pixels(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return self.scale * images.flatten(1)


def test_views_are_drawn_by_the_seed_alone_and_belong_to_their_pictures(tiny):
    config = tiny(
        "method=simclr", "data.views.jitter=0", "data.views.solarize=0", "data.views.blur=0", "data.views.min_area=1"
    )
    shades = torch.arange(600, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8) % 250
    images = MemoryImages(shades.clone(), torch.zeros(600, dtype=torch.long))
    draw = Augmentation(planned_views(config), None, Preprocess(1, 8, 8, (0.5,), (0.2,)), seed=5)
    features = draw.features(Pixels(), images, pictures=600, views=3)
    assert features.shape == (600, 4, 64)  # rounded up
    shown = 255 * (0.2 * features[:, :, 0] + 0.5)  # flat pictures, whatever is cut of them
    torch.testing.assert_close(shown, shades[:, 0, 0, :1].float().expand(-1, 4), atol=1e-2, rtol=0)
    assert torch.equal(features, draw.features(Pixels(), images, 600, 3))
