"""Encoders: images in, one feature vector an image out. `encoder.features` is the length of that vector.

Grey images keep their one channel: the stem takes as many channels as the data has, instead of three copies of one.
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from .errors import TrainerError


@dataclass
class ResNet18Settings:
    """ResNet-18 with the 3 x 3 stem for small images (no stride, no pooling)."""

    name: str = "resnet18"
    width: int = 64  # channels of the first stage; 64 is the standard network, 8 and 16 suit a CPU


@dataclass
class ViTTinySettings:
    """ViT-tiny (timm): 12 blocks of 192 dimensions and 3 heads."""

    name: str = "vit_tiny"
    patch: int = 4  # side of a patch in pixels
    depth: int = 12


class ResNet18(nn.Sequential):
    """Modules are named as torchvision names them, so weights of width 64 move between the two."""

    def __init__(self, channels: int, width: int) -> None:
        stages = [width, 2 * width, 4 * width, 8 * width]
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(channels, width, 3, padding=1, bias=False),
                bn1=nn.BatchNorm2d(width),
                relu=nn.ReLU(inplace=True),
                layer1=_stage(width, stages[0], stride=1),
                layer2=_stage(stages[0], stages[1], stride=2),
                layer3=_stage(stages[1], stages[2], stride=2),
                layer4=_stage(stages[2], stages[3], stride=2),
                avgpool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
            )
        )
        self.features = stages[-1]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
    return nn.Sequential(BasicBlock(inputs, outputs, stride, shortcut), BasicBlock(outputs, outputs))


class ViTTiny(nn.Module):
    def __init__(self, channels: int, size: int, patch: int, depth: int) -> None:
        super().__init__()
        import timm  # takes its time, and only transformers need it

        self.vit = timm.create_model(
            "vit_tiny_patch16_224", img_size=size, patch_size=patch, in_chans=channels, depth=depth, num_classes=0
        )
        self.features = self.vit.num_features

    def forward(self, images: Tensor) -> Tensor:
        return self.vit(images)


BACKBONES = {"resnet18": ResNet18Settings, "vit_tiny": ViTTinySettings}


def build_backbone(settings, channels: int, size: int) -> nn.Module:
    """The encoder for images of `(channels, size, size)`."""
    if settings.name == "resnet18":
        encoder = ResNet18(channels, settings.width)
        # Narrower 1 x 1 strided convolutions in this format make torch 2.14's CPU backward write beyond its memory.
        return encoder.to(memory_format=torch.channels_last) if settings.width >= 8 else encoder
    if size % settings.patch:
        raise TrainerError(
            f"backbone.patch={settings.patch} does not divide the image size {size}: "
            f"choose one that does, or another data.size."
        )
    return ViTTiny(channels, size, settings.patch, settings.depth)
