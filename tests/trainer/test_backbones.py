"""Backbones: shapes, names, and what the penalty finds in them."""

import math
import os
import subprocess
import sys
from urllib.error import URLError

import pytest
import timm
import torch
import torchvision

from ortho_kernels import OrthogonalityPenalty
from ortho_kernels.trainer.backbones import BACKBONES, build_encoder
from ortho_kernels.trainer.errors import TrainerError

SMALL = {
    "resnet18": {"width": 4},
    "resnet50": {"width": 4},
    "wrn28_2": {"depth": 10},
    "vit_tiny": {"depth": 1},
    "vit_small": {"depth": 1},
    "vit_base": {"depth": 1},
    "timm": {"model": "vit_tiny_patch16_224", "options": {"img_size": 32, "patch_size": 8, "depth": 1}},
    "torchvision": {"model": "mobilenet_v3_small"},
}


def build(name, channels=3, size=32, **options):
    return build_encoder(BACKBONES[name](**SMALL[name] | options), channels, size)


def shapes(network):
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", BACKBONES)
def test_one_feature_vector_an_image(name, channels):
    encoder = build(name, channels)
    features = encoder(torch.randn(2, channels, 32, 32))
    assert features.shape == (2, encoder.features)
    features.square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "wrn28_2", "vit_tiny"])
def test_small_views_are_taken_too(name):
    encoder = build(name)
    assert encoder(torch.randn(2, 3, 14, 14)).shape == (2, encoder.features)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnets_of_standard_width_have_torchvisions_parameters(name):
    theirs = shapes(getattr(torchvision.models, name)())
    del theirs["fc.weight"], theirs["fc.bias"]
    assert shapes(build(name, width=64, stem="imagenet")) == theirs
    assert shapes(build(name, width=64)) == theirs | {"conv1.weight": (64, 3, 3, 3)}


def test_the_imagenet_stem_computes_what_torchvision_computes():
    ours, theirs = build("resnet18", width=64, stem="imagenet"), torchvision.models.resnet18()
    theirs.fc = torch.nn.Identity()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=1e-4, atol=1e-4)


def test_wrn_28_2_has_the_size_of_its_paper():
    encoder = build("wrn28_2", depth=28)
    head = 10 * encoder.features + 10
    assert sum(p.numel() for p in encoder.parameters()) + head == pytest.approx(1.5e6, rel=0.03)  # table 4 of the paper
    assert sum(isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3) for m in encoder.modules()) == 25


@pytest.mark.parametrize(("name", "dim", "heads"), [("vit_tiny", 192, 3), ("vit_small", 384, 6), ("vit_base", 768, 12)])
def test_vits_have_deits_sizes(name, dim, heads):
    encoder = build(name, patch=8)
    assert encoder.features == dim
    assert encoder.network.blocks[0].attn.num_heads == heads
    assert encoder.network.patch_embed.num_patches == 16


def test_the_vit_of_mocov3():
    torch.manual_seed(0)
    options = {"heads": 12, "positions": "sincos", "initialization": "mocov3", "freeze_patches": True}
    network = build("vit_small", patch=8, depth=1, **options).network
    assert network.blocks[0].attn.num_heads == 12
    assert {name for name, p in network.named_parameters() if not p.requires_grad} == {
        "pos_embed",
        "patch_embed.proj.weight",
        "patch_embed.proj.bias",
    }
    positions = network.pos_embed[0]
    assert positions.shape == (17, 384)
    assert not positions[0].any()
    for row, column in ((0, 0), (1, 3), (3, 2)):
        angles = [place / 10_000 ** (i / 96) for place in (row, column) for i in range(96)]
        expected = [
            *map(math.sin, angles[:96]),
            *map(math.cos, angles[:96]),
            *map(math.sin, angles[96:]),
            *map(math.cos, angles[96:]),
        ]
        torch.testing.assert_close(positions[1 + 4 * row + column], torch.tensor(expected))
    bounds = {"patch_embed.proj": 3 * 64 + 384, "blocks.0.attn.qkv": 2 * 384, "blocks.0.mlp.fc1": 5 * 384}
    for name, fans in bounds.items():
        layer, bound = network.get_submodule(name), math.sqrt(6 / fans)
        assert 0.98 * bound < layer.weight.abs().max() <= bound, name
        assert not layer.bias.any()


@pytest.mark.parametrize(
    ("name", "count"), [("resnet18", 20), ("resnet50", 53), ("wrn28_2", 10), ("vit_tiny", 5), ("torchvision", 53)]
)
def test_the_penalty_covers_all_conv_and_linear_weights_and_nothing_else(name, count):
    encoder = build(name)
    covered = OrthogonalityPenalty(encoder).weights()
    matrices = {id(p) for p in encoder.parameters() if p.dim() in (2, 4)}
    assert {id(weight) for _, weight, _ in covered} == matrices
    assert len(covered) == count


@pytest.mark.parametrize(
    "name", ["resnet18", "vgg11", "densenet121", "efficientnet_b0", "convnext_tiny", "swin_t", "vit_b_16"]
)
def test_torchvision_networks_lose_their_classifier_alone(name):
    with torch.device("meta"):
        network = BACKBONES["torchvision"](model=name).library_network(1, 32)
        whole = torchvision.models.get_model(name)
    missing = shapes(whole).keys() - shapes(network).keys()
    assert len(missing) == 2  # the weight and the bias of the last layer
    assert next(shape[1] for shape in shapes(network).values() if len(shape) == 4) == 1


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("vit_tiny", {"patch": 5}, r"backbone\.patch=5 does not divide the image size 32"),
        ("vit_tiny", {"heads": 5}, r"backbone\.heads=5 does not divide"),
        ("wrn28_2", {"depth": 20}, r"6 n \+ 4"),
        ("timm", {"model": "convnext_atoo"}, "timm has no model convnext_atoo. Did you mean convnext_atto"),
        ("timm", {"options": {"no_such": 1}}, "timm cannot build vit_tiny_patch16_224"),
        ("timm", {"model": "resnet18", "options": {"act_layer": "loud"}}, r"backbone\.options: it knows no 'loud'"),
        ("timm", {"options": {}}, "cannot take images of 32 x 32 pixels"),
        ("torchvision", {"model": "resnet81"}, r"torchvision has no model resnet81. Did you mean resnet\d+"),
        ("torchvision", {"model": "resnet18", "options": {"image_size": 32}}, "torchvision cannot build resnet18"),
        (
            "torchvision",
            {"model": "resnet18", "options": {"weights": "BEST"}},
            r"backbone\.options: it knows no 'BEST'",
        ),
    ],
)
def test_mistakes_are_answered(name, options, said):
    with pytest.raises(TrainerError, match=said):
        build(name, **options)


def test_every_timm_name_is_accepted():
    assert build("timm", model="resnet10t", options={}).features == timm.create_model("resnet10t").num_features


@pytest.mark.parametrize(
    ("name", "options", "error", "said"),
    [
        ("timm", {"pretrained": True}, OSError("no such host"), r"\(no such host\).*set HF_HOME.*leave pretrained out"),
        (
            "torchvision",
            {"weights": "DEFAULT"},
            URLError("no such host"),
            r"no such host.*set TORCH_HOME.*leave weights out",
        ),
    ],
)
def test_weights_that_cannot_be_fetched_are_answered_in_one_line(monkeypatch, name, options, error, said):
    def unreachable(*_, **__):
        raise error

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(TrainerError, match=said) as caught:
        build(name, model="resnet18", options=options)
    assert "\n" not in str(caught.value)


def test_an_offline_hub_is_answered_in_one_line(tmp_path):
    words = ["backbone=timm", "backbone.options={pretrained: true}", "data=digits", f"runs={tmp_path}"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "ortho_kernels.trainer", *words], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "timm cannot get the weights of convnext_atto" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
