"""Exported encoders: the library's own network, the same features, and clear words where there is nothing to export."""

import pytest
import timm
import torch
import torchvision
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from ortho_kernels.trainer import export
from ortho_kernels.trainer.backbones import ResNet, WideResNet, build_backbone
from ortho_kernels.trainer.checkpoints import checkpoint_files, read_checkpoint
from ortho_kernels.trainer.config import load_config
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.export import export_encoder, load_encoder


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
    encoder = build_backbone(config.backbone, channels=1, size=32)
    encoder(torch.randn(4, 1, 32, 32))  # moves the batch statistics from where they start
    (tmp_path / "checkpoints").mkdir()
    OmegaConf.save(config, tmp_path / "config.yaml")
    state = {f"method.encoder.{name}": value for name, value in encoder.state_dict().items()}
    checkpoint = {"state_dict": state | {"method.projector.weight": torch.ones(2)}}
    torch.save(checkpoint, tmp_path / "checkpoints" / "step-000000001.ckpt")
    file = tmp_path / "encoder.safetensors"
    export_encoder(tmp_path, file)
    network = load_encoder(file)
    assert isinstance(network, kind)
    assert not network.training
    images = torch.randn(3, 1, 32, 32)
    torch.testing.assert_close(network(images), encoder.eval()(images), rtol=1e-4, atol=1e-5)
    if kind is timm.models.VisionTransformer:  # timm's own way to load it
        options = {"img_size": 32, "patch_size": 8, "in_chans": 1, "depth": 1, "num_classes": 0}
        theirs = timm.create_model("vit_tiny_patch16_224", checkpoint_path=str(file), **options).eval()
        torch.testing.assert_close(theirs(images), network(images), rtol=1e-4, atol=1e-5)


def test_a_run_is_exported_by_one_command(run_tiny, capsys):
    folder = run_tiny("method=simclr")
    export.main([str(folder)])
    file = folder / "encoder.safetensors"
    assert f"{file}: ortho_kernels.trainer.backbones.resnet.ResNet" in capsys.readouterr().out
    names = load_file(file).keys()
    assert "layer4.1.conv2.weight" in names
    assert not any("projector" in name for name in names)
    assert [path.name for path in folder.glob("*.partial")] == []


def test_the_network_that_was_judged_is_exported(run_tiny):
    files = []
    for name in ("student", "teacher"):
        folder = run_tiny("method=byol", "optimizer.lr=10", "optimizer.warmup=0", f"evaluation.network={name}")
        export_encoder(folder, folder / "encoder.safetensors")
        files.append(load_file(folder / "encoder.safetensors"))
        state = read_checkpoint(checkpoint_files(folder / "checkpoints")[0])["state_dict"]
        prefix = {"student": "method.encoder.", "teacher": "method.teacher.0."}[name]
        assert torch.equal(files[-1]["conv1.weight"], state[f"{prefix}conv1.weight"])
    student, teacher = files
    assert student.keys() == teacher.keys()
    assert not torch.equal(student["conv1.weight"], teacher["conv1.weight"])


def test_what_cannot_be_exported_or_loaded_is_said(tmp_path):
    with pytest.raises(TrainerError, match="has no checkpoint to export"):
        export_encoder(tmp_path, tmp_path / "encoder.safetensors")
    with pytest.raises(TrainerError, match="Cannot read"):
        load_encoder(tmp_path / "nothing.safetensors")
    save_file({"weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(TrainerError, match="does not say which network it holds"):
        load_encoder(tmp_path / "other.safetensors")
