"""Encoders: images in, one feature vector an image out. `encoder.features` is the length of that vector.

Grey images keep their one channel: the stem takes as many channels as the data has, instead of three copies of one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from .library import TimmSettings, TorchvisionSettings, Wrapped, build_timm, build_torchvision
from .resnet import ResNet, ResNet18Settings, ResNet50Settings, build_resnet
from .vit import ViTBaseSettings, ViTSmallSettings, ViTTinySettings, build_vit
from .wide_resnet import WideResNet, WideResNetSettings, build_wide_resnet


class Backbone(NamedTuple):
    settings: type[Any]
    build: Callable[[Any, int, int], nn.Module]


BACKBONES = {
    "resnet18": Backbone(ResNet18Settings, build_resnet),
    "resnet50": Backbone(ResNet50Settings, build_resnet),
    "wrn28_2": Backbone(WideResNetSettings, build_wide_resnet),
    "vit_tiny": Backbone(ViTTinySettings, build_vit),
    "vit_small": Backbone(ViTSmallSettings, build_vit),
    "vit_base": Backbone(ViTBaseSettings, build_vit),
    "timm": Backbone(TimmSettings, build_timm),
    "torchvision": Backbone(TorchvisionSettings, build_torchvision),
}


def build_backbone(settings: Any, channels: int, size: int) -> nn.Module:
    """The encoder for images of `(channels, size, size)`."""
    return BACKBONES[settings.name].build(settings, channels, size)


__all__ = ["BACKBONES", "Backbone", "ResNet", "WideResNet", "Wrapped", "build_backbone"]
