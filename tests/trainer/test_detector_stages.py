"""The stages of encoders, as a detector sees them."""

import pytest
import torch
from torch import nn

from ortho_kernels.trainer.backbones import BACKBONES, build_encoder
from ortho_kernels.trainer.detection.stages import split_stages
from ortho_kernels.trainer.errors import TrainerError

NETWORKS = [  # name, options, channels of the pictures, (channels, stride) of each stage
    ("resnet18", {"width": 4}, 1, [(4, 1), (8, 2), (16, 4), (32, 8)]),
    ("resnet18", {"width": 4, "stem": "imagenet"}, 3, [(4, 4), (8, 8), (16, 16), (32, 32)]),
    ("resnet50", {"width": 2}, 3, [(8, 1), (16, 2), (32, 4), (64, 8)]),
    ("wrn28_2", {"depth": 10}, 3, [(32, 1), (64, 2), (128, 4)]),
    ("torchvision", {"model": "resnet18"}, 3, [(64, 4), (128, 8), (256, 16), (512, 32)]),
    ("timm", {"model": "resnet18"}, 1, [(64, 4), (128, 8), (256, 16), (512, 32)]),
    ("timm", {"model": "convnext_atto"}, 3, [(40, 4), (80, 8), (160, 16), (320, 32)]),
]
REFUSED = [
    ("vit_tiny", {"depth": 4}, "its blocks put out vectors, no maps"),
    ("torchvision", {"model": "mobilenet_v3_small"}, "none are known of MobileNetV3"),
    ("timm", {"model": "mobilenetv3_small_050"}, "their strides would be 4, 16, 16, 32"),
]


def build(name, options, channels):
    return build_encoder(BACKBONES[name](**options), channels, 32)


@pytest.mark.parametrize(("name", "options", "channels", "expected"), NETWORKS)
def test_channels_and_strides(name, options, channels, expected):
    stages = split_stages(build(name, options, channels), channels, 32, name)
    assert [(stage.channels, stage.stride) for stage in stages] == expected
    images = torch.randn(1, channels, 64, 96)
    for stage in stages:
        images = stage.module.eval()(images)
        assert images.shape == (1, stage.channels, 64 // stage.stride, 96 // stage.stride)


@pytest.mark.parametrize(("name", "options", "channels"), [network[:3] for network in NETWORKS])
def test_the_stages_pooled_are_the_encoder(name, options, channels):
    encoder = build(name, options, channels).eval()
    images = torch.randn(2, channels, 64, 64)
    expected, pooled = encoder(images), images
    for stage in split_stages(encoder, channels, 32, name):
        pooled = stage.module(pooled)
    pooled = pooled.mean((2, 3))
    if "convnext" in options.get("model", ""):  # whose last norm follows the pooling
        pooled = encoder.network.head.norm(pooled[:, :, None, None]).flatten(1)
    torch.testing.assert_close(pooled, expected, rtol=1e-4, atol=1e-5)


def test_the_layers_are_the_encoders_own():
    encoder = build("resnet18", {"width": 4}, 3)
    stages = split_stages(encoder, 3, 32, "resnet18")
    assert list(stages[0].module) == [encoder.conv1, encoder.bn1, encoder.relu, encoder.layer1]
    assert list(stages[3].module) == [encoder.layer4]


def test_what_follows_the_last_stage_belongs_to_it():
    encoder = build("wrn28_2", {"depth": 10}, 3)
    assert list(split_stages(encoder, 3, 32, "wrn28_2")[2].module) == [encoder.stage3, encoder.norm, encoder.relu]


def test_looking_for_stages_changes_nothing():
    encoder = build("resnet18", {"width": 4}, 3).train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    split_stages(encoder, 3, 32, "resnet18")
    assert encoder.training
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize(("name", "options", "reason"), REFUSED)
def test_an_encoder_without_stages_is_refused_by_name(name, options, reason):
    with pytest.raises(TrainerError, match=f"^an encoder has no stages to detect with: {reason}"):
        split_stages(build(name, options, 3), 3, 32, "an encoder")


def test_layers_that_do_not_follow_each_other_are_refused():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer1 = nn.Conv2d(3, 3, 3, 2, 1)
            self.layer2 = nn.Conv2d(3, 3, 3, 2, 1)

        def forward(self, images):
            return (self.layer2(self.layer1(images)) + self.layer2(self.layer1(images))).mean((2, 3))

    with pytest.raises(TrainerError, match="its layers do not follow each other"):
        split_stages(Twice(), 3, 32, "twice")
