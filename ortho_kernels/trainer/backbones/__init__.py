"""Encoders: images in, one feature vector an image out. `encoder.features` is the length of that vector.

Gray images keep their one channel: the stem takes as many channels as the data has, instead of three copies of one.
A new backbone is a file here and a line in BACKBONES.
"""

from torch import nn

from ..errors import TrainerError
from ..registry import Registry
from .base import Backbone
from .library import Timm, Torchvision, Wrapped
from .resnet import ResNet, ResNet18, ResNet50
from .vit import ViTBase, ViTSmall, ViTTiny
from .wide_resnet import WRN, WideResNet

BACKBONES: Registry[Backbone] = Registry(
    "backbone",
    Backbone,
    "ortho_kernels.backbones",
    {
        "resnet18": ResNet18,
        "resnet50": ResNet50,
        "wrn28_2": WRN,
        "vit_tiny": ViTTiny,
        "vit_small": ViTSmall,
        "vit_base": ViTBase,
        "timm": Timm,
        "torchvision": Torchvision,
    },
)


def build_encoder(backbone: Backbone, channels: int, size: int) -> nn.Module:
    """The encoder for images of `(channels, size, size)`."""
    encoder = backbone.build(channels, size)
    if not isinstance(getattr(encoder, "features", None), int):
        raise TrainerError(
            f"backbone={backbone.name}: the network lacks `features`, the length of its feature vectors. Set it, or "
            f"build ortho_kernels.trainer.backbones.Wrapped(network, features)."
        )
    return encoder


__all__ = ["BACKBONES", "Backbone", "ResNet", "WideResNet", "Wrapped", "build_encoder"]
