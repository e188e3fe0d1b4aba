"""The stages of networks of torchvision, timm, torch and this package."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from ortho_kernels.spectra import feature_spectra, find_stages, last_layers, spectra_of
from ortho_kernels.trainer.backbones import ResNet, WideResNet, Wrapped


def vit(depth):
    return timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=depth, num_classes=0)


def torchvision_vit():
    return torchvision.models.VisionTransformer(32, 8, num_layers=5, num_heads=2, hidden_dim=16, mlp_dim=32)


FOUR = ["layer1", "layer2", "layer3", "layer4"]


@pytest.mark.parametrize(
    ("network", "stages", "last"),
    [
        (lambda: torchvision.models.resnet18(num_classes=3), FOUR, "layer4.1.conv2.weight"),
        (lambda: timm.create_model("resnet10t", num_classes=0), FOUR, "layer4.0.conv2.weight"),
        (
            lambda: ResNet(torchvision.models.resnet.BasicBlock, (1, 1, 1, 1), 3, 4, "cifar"),
            FOUR,
            "layer4.0.conv2.weight",
        ),
        (lambda: WideResNet(10, 1, 3), ["stage1", "stage2", "stage3"], "stage3.0.conv2.weight"),
        (lambda: vit(12), [f"blocks.{i}" for i in (2, 5, 8, 11)], "blocks.11.mlp.fc2.weight"),
        (lambda: vit(6), [f"blocks.{i}" for i in (0, 2, 3, 5)], "blocks.5.mlp.fc2.weight"),
        (lambda: Wrapped(vit(2), 192), ["network.blocks.0", "network.blocks.1"], "network.blocks.1.mlp.fc2.weight"),
        (
            torchvision_vit,
            [f"encoder.layers.encoder_layer_{i}" for i in (0, 1, 2, 4)],
            "encoder.layers.encoder_layer_4.mlp.3.weight",
        ),
        (
            lambda: timm.create_model("convnext_atto"),
            [f"stages.{i}" for i in range(4)],
            "stages.3.blocks.1.mlp.fc2.weight",
        ),
        (lambda: timm.create_model("regnetx_002"), ["s1", "s2", "s3", "s4"], "s4.b7.conv3.conv.weight"),
    ],
    ids=[
        "resnet",
        "timm resnet",
        "narrow",
        "wide",
        "vit 12",
        "vit 6",
        "wrapped",
        "torchvision vit",
        "convnext",
        "regnet",
    ],
)
def test_stages_and_their_last_layers(network, stages, last):
    network = network()
    assert find_stages(network) == stages
    assert last_layers(network, stages)[-1] == last
    spectra = feature_spectra(network, torch.randn(3, 3, 32, 32))
    assert [*spectra] == [*stages, "representation"]
    assert all(each.samples == 3 for each in spectra.values())


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(48, 5)),
        nn.Linear(48, 5),
        timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1), embed_dim=8, num_heads=(1, 1, 1, 1)),
    ],
    ids=["sequential", "linear", "channels-last maps"],
)
def test_other_networks_take_names(network):
    with pytest.raises(ValueError, match=f"no stages are known of {type(network).__name__}; give names of modules"):
        find_stages(network)


def test_a_network_of_another_form_has_no_stages_and_says_so():
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    result = spectra_of(network, torch.randn(7, 3, 4, 4))
    assert [*result.features] == ["representation"]
    assert "no stages: none are known of this network" in str(result)
    assert [*spectra_of(network, torch.randn(7, 3, 4, 4), stages=["0"]).features] == ["0", "representation"]
