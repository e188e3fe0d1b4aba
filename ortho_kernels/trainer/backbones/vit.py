"""Vision transformers (Dosovitskiy et al., ICLR 2021; DeiT's sizes) as timm builds them."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import TrainerError
from ..options import at_least, one_of, option
from .base import Backbone
from .library import Wrapped, building


@dataclass
class ViT(Backbone):
    model: ClassVar[str]  # timm's
    patch: int = option(4, "side of a patch in pixels", at_least(1))
    depth: int = option(12, "number of blocks", at_least(1))
    heads: int | None = option(None, "heads of a block's attention; DeiT's number by default", at_least(1))
    positions: str = option("learned", "learned, or fixed sines and cosines (MoCo v3)", one_of("learned", "sincos"))
    # Xavier's in both others; mocov3 takes queries, keys and values apart, mae as one matrix
    initialization: str = option("timm", "initial weights: timm's, MoCo v3's or MAE's", one_of("timm", "mocov3", "mae"))
    freeze_patches: bool = option(False, "the projection of patches keeps its initial weights (MoCo v3, section 4)")

    def build(self, channels: int, size: int) -> nn.Module:
        if size % self.patch:
            raise TrainerError(
                f"backbone.patch={self.patch} does not divide the image size {size}: "
                f"choose one that does, or another data.size."
            )
        network: Any = self.library_network(channels, size)
        return Wrapped(network, network.num_features)

    def library_network(self, channels: int, size: int) -> nn.Module:
        return timm_vit(self, channels, size)

    def trained_network(self, channels: int, size: int) -> nn.Module:
        """timm scales its patches and position embeddings to those of the options."""
        usual = ViT(name=self.name)
        if changed := [key for key in ("depth", "heads", "positions") if getattr(self, key) != getattr(usual, key)]:
            raise TrainerError(
                f"init=pretrained: timm's {self.model} was trained with other options. Leave out "
                f"{', '.join(f'backbone.{key}' for key in changed)}."
            )
        with building(self, cache="HF_HOME"):
            return timm_vit(self, channels, size, pretrained=True)


@dataclass
class ViTTiny(ViT):
    """Blocks of 192 dimensions and 3 heads."""

    name: str = "vit_tiny"
    model = "vit_tiny_patch16_224"


@dataclass
class ViTSmall(ViT):
    """Blocks of 384 dimensions and 6 heads."""

    name: str = "vit_small"
    model = "vit_small_patch16_224"


@dataclass
class ViTBase(ViT):
    """Blocks of 768 dimensions and 12 heads."""

    name: str = "vit_base"
    model = "vit_base_patch16_224"


def timm_vit(settings: ViT, channels: int, size: int, pretrained: bool = False) -> nn.Module:
    """Small views of another size are padded to whole patches, and the position embedding is scaled to them."""
    import timm  # takes its time, and only transformers need it

    try:
        network: Any = timm.create_model(
            settings.model,
            pretrained=pretrained,
            img_size=size,
            patch_size=settings.patch,
            in_chans=channels,
            depth=settings.depth,
            num_classes=0,
            dynamic_img_size=True,
            dynamic_img_pad=True,
            weight_init="moco" if settings.initialization == "mocov3" else "",
            num_heads=settings.heads,
        )
    except AssertionError:
        if settings.heads is None:
            raise
        raise TrainerError(
            f"backbone.heads={settings.heads} does not divide the dimensions of {settings.name}; DeiT has 64 a head."
        ) from None
    patches = network.patch_embed
    if settings.initialization == "mocov3":  # timm's scheme of that name leaves the patches to torch
        nn.init.xavier_uniform_(patches.proj.weight.data.flatten(1))
        nn.init.zeros_(patches.proj.bias)
    if settings.initialization == "mae":
        network.apply(fill_as_mae)
        nn.init.xavier_uniform_(patches.proj.weight.data.flatten(1))
        nn.init.normal_(network.cls_token, std=0.02)
    if settings.positions == "sincos":
        rows, columns = patches.grid_size
        positions = sine_cosine_positions(rows, columns, network.embed_dim)
        network.pos_embed = nn.Parameter(positions, requires_grad=False)
    if settings.freeze_patches:
        patches.requires_grad_(False)
    return network


def fill_as_mae(layer: nn.Module) -> None:
    """The initial weights of MAE's linear layers (He et al., CVPR 2022; facebookresearch/mae, models_mae.py)."""
    if isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def sine_cosine_positions(rows: int, columns: int, dim: int) -> Tensor:
    """`(1, 1 + rows * columns, dim)`: zeros for the class token, then a row for each patch (MoCo v3).

    It holds the sines and cosines of the patch's row, then of its column. The `dim / 4` frequencies fall from 1 to
    about 1/10000 (Vaswani et al. 2017, section 3.5).
    """
    frequencies = 10_000.0 ** -(torch.arange(dim // 4) / (dim // 4))
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    row, column = row.reshape(-1, 1) * frequencies, column.reshape(-1, 1) * frequencies
    patches = torch.cat([row.sin(), row.cos(), column.sin(), column.cos()], dim=1)
    return torch.cat([torch.zeros(1, dim), patches])[None]
