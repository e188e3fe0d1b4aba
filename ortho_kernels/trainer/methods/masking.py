"""Masks for MAE: which patches of a picture are visible, and a vision transformer that sees those alone."""

from typing import Any

import torch
from torch import Tensor, nn

from ..backbones import Wrapped
from ..errors import TrainerError
from .base import BatchPlace


def network_of(encoder: nn.Module) -> Any:
    """The library's network within the encoder."""
    return encoder.network if isinstance(encoder, Wrapped) else encoder


def require_patches(network: Any) -> None:
    """Raises TrainerError for a network out of which patches can't be left."""
    from timm.models.vision_transformer import VisionTransformer  # takes its time, and only MAE needs it

    if type(network) is not VisionTransformer:
        kind = f"a {type(network).__name__}"
    elif network.pos_embed is None:
        kind = "a vision transformer without a position embedding"
    elif network.global_pool != "token":
        kind = f"a vision transformer with global_pool={network.global_pool!r}"
    else:
        return
    raise TrainerError(
        f"method=mae leaves patches out of a plain vision transformer with a class token; it can't of {kind}. "
        "Give backbone=vit_tiny, vit_small or vit_base, or a ViT of timm's."
    )


def visible_count(patches: int, mask: float) -> int:
    """How many of a picture's patches stay visible where the share `mask` of them is masked."""
    visible = int(patches * (1 - mask))
    if visible in (0, patches):
        left = "none of them visible" if visible == 0 else "none of them masked"
        raise TrainerError(
            f"method.mask={mask:g} of {patches} patches leaves {left}: "
            f"give a share from {1 / patches:.2g} to {1 - 1 / patches:.2g}, or a smaller backbone.patch."
        )
    return visible


@torch.compiler.disable  # it draws on the host
def draw_order(place: BatchPlace, pictures: int, patches: int, device: torch.device) -> Tensor:
    """int64 `(pictures, patches)`: each picture's patches in random order. Those that come first stay visible."""
    return place.uniform("mask", pictures, patches, device).argsort(dim=1, stable=True)


def visible_tokens(network: Any, images: Tensor, visible: Tensor) -> Tensor:
    """The tokens `(pictures, prefix + visible, dim)` of timm's ViT that sees the patches `visible` alone, by their
    numbers `(pictures, visible)`. The prefix is the class token, and registers if it has any."""
    tokens = network._pos_embed(network.patch_embed(images))
    prefix = network.num_prefix_tokens
    tokens = torch.cat([tokens[:, :prefix], rows(tokens[:, prefix:], visible)], dim=1)
    return network.norm(network.blocks(network.norm_pre(tokens)))


def rows(values: Tensor, numbers: Tensor) -> Tensor:
    """`(batch, n, dim)` and `(batch, m)` to `(batch, m, dim)`: each picture's rows of these numbers."""
    return values.gather(1, numbers[..., None].expand(-1, -1, values.shape[2]))


def patch_pixels(images: Tensor, height: int, width: int) -> Tensor:
    """`(batch, channels, h, w)` as patches `(batch, patches, height * width * channels)`: row by row, and in a patch
    pixel by pixel, its channels side by side."""
    return images.unfold(2, height, height).unfold(3, width, width).permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


def pixels_of_patches(patches: Tensor, grid: tuple[int, int], patch: tuple[int, int]) -> Tensor:
    """The images of which `patch_pixels` made the patches."""
    images = patches.unflatten(1, grid).unflatten(3, (*patch, -1))
    return images.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
