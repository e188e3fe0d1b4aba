"""Encoders: images in, one feature vector an image out. `encoder.features` is the length of that vector.

Gray images keep their one channel: the stem takes as many channels as the data has, instead of three copies of one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from .library import (
    TimmSettings,
    TorchvisionSettings,
    Wrapped,
    build_timm,
    build_torchvision,
    timm_network,
    torchvision_network,
)
from .resnet import ResNet, ResNet18Settings, ResNet50Settings, ResNetSettings, build_resnet, torchvision_resnet
from .vit import ViTBaseSettings, ViTSettings, ViTSmallSettings, ViTTinySettings, build_vit, vit_network
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


def library_network(settings: Any, channels: int, size: int) -> nn.Module | None:
    """timm's or torchvision's own network with the weights' names and shapes of such an encoder, if there is one."""
    if isinstance(settings, ViTSettings):
        return vit_network(settings, channels, size)
    if isinstance(settings, TimmSettings):
        return timm_network(settings, channels)
    if isinstance(settings, TorchvisionSettings):
        return torchvision_network(settings, channels)
    return torchvision_resnet(settings, channels) if isinstance(settings, ResNetSettings) else None


__all__ = ["BACKBONES", "Backbone", "ResNet", "WideResNet", "Wrapped", "build_backbone", "library_network"]
