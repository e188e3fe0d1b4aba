"""Vision transformers (Dosovitskiy et al., ICLR 2021; DeiT's sizes) as timm builds them."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from ..errors import TrainerError
from .library import Wrapped


@dataclass
class ViTSettings:
    name: str
    patch: int = 4  # side of a patch in pixels
    depth: int = 12


@dataclass
class ViTTinySettings(ViTSettings):
    """Blocks of 192 dimensions and 3 heads."""

    name: str = "vit_tiny"


@dataclass
class ViTSmallSettings(ViTSettings):
    """Blocks of 384 dimensions and 6 heads."""

    name: str = "vit_small"


@dataclass
class ViTBaseSettings(ViTSettings):
    """Blocks of 768 dimensions and 12 heads."""

    name: str = "vit_base"


def build_vit(settings: ViTSettings, channels: int, size: int) -> Wrapped:
    if size % settings.patch:
        raise TrainerError(
            f"backbone.patch={settings.patch} does not divide the image size {size}: "
            f"choose one that does, or another data.size."
        )
    network = vit_network(settings, channels, size)
    features: Any = network.num_features
    return Wrapped(network, features)


def vit_network(settings: ViTSettings, channels: int, size: int) -> nn.Module:
    """Small views of another size are padded to whole patches, and the position embedding is scaled to them."""
    import timm  # takes its time, and only transformers need it

    return timm.create_model(
        f"{settings.name}_patch16_224",
        img_size=size,
        patch_size=settings.patch,
        in_chans=channels,
        depth=settings.depth,
        num_classes=0,
        dynamic_img_size=True,
        dynamic_img_pad=True,
    )
