"""Exported encoders: the library's own network, the same features, and clear words where there is nothing to export."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from lightning.pytorch import Callback
from omegaconf import OmegaConf
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from saved_encoder import save_encoder
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from ortho_kernels.trainer.backbones import ResNet, WideResNet, build_encoder
from ortho_kernels.trainer.config import load_config
from ortho_kernels.trainer.data import load_splits
from ortho_kernels.trainer.distributed.processes import ALONE
from ortho_kernels.trainer.engine.checkpoints import checkpoint_files, read_checkpoint
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.export import export_encoder, load_encoder, load_preprocess
from ortho_kernels.trainer.export.__main__ import main as export_main
from ortho_kernels.trainer.probes.features import extract

PREPROCESS = {"channels": 1, "decode_size": 32, "size": 32, "mean": [0.5], "std": [0.2]}


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["backbone=resnet18"], torchvision.models.ResNet),
        (["backbone=resnet18", "backbone.stem=imagenet"], torchvision.models.ResNet),
        (["backbone=resnet18", "backbone.width=8"], ResNet),
        (["backbone=wrn28_2", "backbone.depth=10"], WideResNet),
        (["backbone=vit_tiny", "backbone.patch=8", "backbone.depth=1"], timm.models.VisionTransformer),
        (["backbone=timm", "backbone.model=resnet10t"], timm.models.ResNet),
        (["backbone=torchvision", "backbone.model=shufflenet_v2_x0_5"], torchvision.models.ShuffleNetV2),
    ],
)
def test_a_file_loads_as_the_librarys_own_network_and_gives_the_same_features(tmp_path, words, kind):
    config = load_config(["data=digits", "data.size=32", *words])
    torch.manual_seed(0)
    encoder = build_encoder(OmegaConf.to_object(config.backbone), channels=1, size=32)
    encoder(torch.randn(4, 1, 32, 32))  # moves the batch statistics from where they start
    file = write_export(tmp_path, config, encoder, PREPROCESS)
    network = load_encoder(file)
    assert isinstance(network, kind)
    assert not network.training
    images = torch.randn(3, 1, 32, 32)
    torch.testing.assert_close(network(images), encoder.eval()(images), rtol=1e-4, atol=1e-5)
    if kind is timm.models.VisionTransformer:  # timm's own way to load it
        options = {"img_size": 32, "patch_size": 8, "in_chans": 1, "depth": 1, "num_classes": 0}
        theirs = timm.create_model("vit_tiny_patch16_224", checkpoint_path=str(file), **options).eval()
        torch.testing.assert_close(theirs(images), network(images), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_a_resnet_loads_without_this_package(tmp_path, stem):
    """As docs/exports.md writes it."""
    config = load_config(["data=digits", "data.size=32", "backbone=resnet18", f"backbone.stem={stem}"])
    encoder = build_encoder(OmegaConf.to_object(config.backbone), channels=3, size=32).train()
    encoder(torch.randn(4, 3, 32, 32))
    file = write_export(tmp_path, config, encoder, {**PREPROCESS, "channels": 3})
    network = torchvision.models.resnet18()
    network.fc = nn.Identity()
    if stem == "cifar":
        network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    network.load_state_dict(load_file(file))
    networks = [network]
    if stem == "imagenet":
        networks.append(timm.create_model("resnet18", num_classes=0, checkpoint_path=file))
    images = torch.randn(3, 3, 32, 32)
    for network in networks:
        torch.testing.assert_close(network.eval()(images), encoder.eval()(images), rtol=1e-4, atol=1e-5)


def write_export(folder, config, encoder, preprocess):
    """Exports an encoder as that of a run; returns the file."""
    export_encoder(save_encoder(folder, config, encoder, preprocess), folder / "encoder.safetensors")
    return folder / "encoder.safetensors"


def test_a_run_is_exported_by_one_command(run_tiny, capsys):
    folder = run_tiny("method=simclr")
    export_main([str(folder)])
    file = folder / "encoder.safetensors"
    said = capsys.readouterr().out
    assert f"{file}: ortho_kernels.trainer.backbones.resnet.ResNet" in said
    assert f'load_encoder("{file}"), load_preprocess("{file}")' in said
    names = load_file(file).keys()
    assert "layer4.1.conv2.weight" in names
    assert not any("projector" in name for name in names)
    with safe_open(file, "pt") as opened:
        training = json.loads(opened.metadata()["encoder"])["training"]
    assert (training["network"], training["step"], training["options"]["method"]["name"]) == ("student", 2, "simclr")
    assert [path.name for path in folder.glob("*.partial")] == []


class Trained(Callback):
    """Keeps the module that a run has trained, and its last features of the test pictures."""

    def on_train_end(self, trainer, module):
        self.module = module

    def features(self, splits):
        return extract(self.module.method.encoder, self.module.views.plain, splits.test, batch_size=16).features


@pytest.fixture
def exported(tiny, run_tiny):
    """Trains, exports; gives the run's own features of its test pictures, the encoder and the transform."""

    def train(*words):
        trained = Trained()
        folder = run_tiny("method=simclr", *words, callbacks=[trained])
        file = folder / "encoder.safetensors"
        export_encoder(folder, file)
        splits = load_splits(OmegaConf.to_object(tiny("method=simclr", *words).data), ALONE)
        return folder, splits, trained.features(splits), load_encoder(file), load_preprocess(file)

    return train


@torch.no_grad()
@pytest.mark.parametrize("size", [8, 12])
def test_encoder_and_transform_give_the_features_of_a_run_on_digits(exported, size):
    _, splits, features, encoder, preprocess = exported(f"data.size={size}")
    pixels = splits.test.batch(torch.arange(len(splits.test)))[:, 0]
    images = torch.stack([preprocess(Image.fromarray(picture.numpy())) for picture in pixels])
    assert images.dtype == torch.float32
    assert images.shape[1:] == (1, size, size)
    torch.testing.assert_close(encoder(images), features, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two classes of files of several formats, modes and sizes; the last is large enough for a JPEG's quick decoding."""
    root, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    kinds = [("RGB", 30, 41, "png"), ("L", 24, 24, "png"), ("RGB", 50, 20, "jpg"), ("L", 33, 35, "jpg")]
    kinds += [("P", 40, 26, "png"), ("RGB", 130, 170, "jpg")]
    for part in ("train", "test"):
        for label in ("cat", "dog"):
            (root / part / label).mkdir(parents=True)
            for number, (mode, height, width, suffix) in enumerate(2 * kinds):
                coarse = Image.fromarray(draw.integers(0, 256, (5, 6, 3), dtype=np.uint8))
                picture = coarse.resize((width, height)).convert(mode)
                picture.save(root / part / label / f"{number:02}.{suffix}")
    return root


@torch.no_grad()
@pytest.mark.parametrize("memory_gib", [4, 0])  # decoded once into memory, decoded for every batch
def test_encoder_and_transform_give_the_features_of_a_run_on_a_folder(exported, pictures, memory_gib):
    words = "data=imagefolder", f"data.root={pictures}", "data.size=16", "data.decode_size=24", "trainer.workers=0"
    _, splits, features, encoder, preprocess = exported(*words, f"data.memory_gib={memory_gib}")
    assert splits.test.in_memory == (memory_gib > 0)
    dataset = ImageFolder(pictures / "test", transform=preprocess, loader=Image.open)
    images = torch.cat([images for images, _ in DataLoader(dataset, batch_size=5, num_workers=1)])
    assert images.shape == (len(splits.test), 3, 16, 16)
    torch.testing.assert_close(encoder(images), features, rtol=0, atol=1e-6)


def test_the_statistics_of_the_data_stand_in_checkpoint_results_and_export(exported):
    folder, splits, _, _, preprocess = exported("data.size=12")
    pixels = splits.train.sample() / 255
    assert (preprocess.channels, preprocess.decode_size, preprocess.size) == (1, 8, 12)
    assert preprocess.mean == pytest.approx([pixels.mean().item()])
    assert preprocess.std == pytest.approx([pixels.std().item()])
    checkpoint = read_checkpoint(checkpoint_files(folder / "checkpoints")[0])
    results = json.loads((folder / "results.json").read_text())
    for found in (checkpoint["preprocess"], results["preprocess"]):
        assert json.loads(json.dumps(found)) == json.loads(json.dumps(vars(preprocess)))


def test_a_transform_takes_pictures_of_any_mode_and_size_and_nothing_else(exported):
    *_, preprocess = exported()
    for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK"):
        assert preprocess(Image.new(mode, (40, 13))).shape == (1, 8, 8)
    assert pickle.loads(pickle.dumps(preprocess)) == preprocess
    with pytest.raises(TypeError, match=r"takes a PIL picture.*got Tensor"):
        preprocess(torch.zeros(1, 8, 8))


@pytest.mark.parametrize("word", ["evaluation.network", "network"])
def test_the_network_that_was_judged_or_that_a_word_names_is_exported(run_tiny, word):
    files = []
    for name in ("student", "teacher"):
        judged = [f"{word}={name}"] if word == "evaluation.network" else []
        folder = run_tiny("method=byol", "optimizer.lr=10", "optimizer.warmup=0", *judged)
        export_main([str(folder), *([] if judged else [f"{word}={name}"])])
        files.append(load_file(folder / "encoder.safetensors"))
        state = read_checkpoint(checkpoint_files(folder / "checkpoints")[0])["state_dict"]
        prefix = {"student": "method.encoder.", "teacher": "method.teacher.0."}[name]
        assert torch.equal(files[-1]["conv1.weight"], state[f"{prefix}conv1.weight"])
    student, teacher = files
    assert student.keys() == teacher.keys()
    assert not torch.equal(student["conv1.weight"], teacher["conv1.weight"])


@pytest.mark.parametrize(
    "words",
    [
        ["backbone=timm", "backbone.model=resnet10t", "backbone.options={pretrained: true}"],
        ["backbone=torchvision", "backbone.options={weights: DEFAULT}"],
    ],
)
def test_weights_come_from_the_file_and_not_from_the_library(tmp_path, monkeypatch, words):
    """A run that started from trained weights is loaded where there is no network."""
    config = load_config(["data=digits", "data.size=32", *words])
    untrained = load_config(["data=digits", *words[:-1]])
    encoder = build_encoder(OmegaConf.to_object(untrained.backbone), channels=1, size=32)
    file = write_export(tmp_path, config, encoder, PREPROCESS)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("torch.hub.download_url_to_file", _no_network)
    monkeypatch.setattr("timm.models._builder.load_pretrained", _no_network)
    network = load_encoder(file)
    images = torch.randn(3, 1, 32, 32)
    torch.testing.assert_close(network(images), encoder.eval()(images), rtol=1e-4, atol=1e-5)


def _no_network(*_, **__):
    raise OSError("no network")


def test_a_target_that_is_no_file_is_refused(run_tiny, tmp_path):
    run = run_tiny()
    for target in (Path(), tmp_path):
        with pytest.raises(TrainerError, match=r"is a folder: give the file to write, such as \S*encoder\.safetensors"):
            export_encoder(run, target)
    with pytest.raises(TrainerError, match=r"Cannot write /proc/nothing/here\.safetensors: .* then export again"):
        export_encoder(run, Path("/proc/nothing/here.safetensors"))
    with pytest.raises(TrainerError, match=r"encoder\.pt is the name of a pickle: give one such as \S*encoder\.saf"):
        export_encoder(run, tmp_path / "encoder.pt")


def test_what_cannot_be_exported_or_loaded_is_said(tmp_path):
    with pytest.raises(TrainerError, match="has no checkpoint to export"):
        export_encoder(tmp_path, tmp_path / "encoder.safetensors")
    with pytest.raises(TrainerError, match="Cannot read"):
        load_encoder(tmp_path / "nothing.safetensors")
    save_file({"weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(TrainerError, match="does not say which network it holds"):
        load_encoder(tmp_path / "other.safetensors")
