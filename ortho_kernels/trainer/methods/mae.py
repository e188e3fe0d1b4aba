"""MAE (He et al., CVPR 2022): most patches of a picture are masked, and reconstructed from the few that are visible."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..backbones.vit import fill_as_mae, sine_cosine_positions
from ..errors import TrainerError
from ..options import at_least, inside, one_of, option
from .base import BatchPlace, Method, MethodSettings, Output
from .masking import (
    draw_order,
    network_of,
    patch_pixels,
    pixels_of_patches,
    require_patches,
    rows,
    visible_count,
    visible_tokens,
)


class MAE(Method):
    @dataclass
    class Settings(MethodSettings):
        name: str = "mae"
        views: str = option("one", "one: no views are compared", one_of("one"))
        mask: float = option(0.75, "share of a picture's patches that is masked", inside(0, 1))
        decoder_width: int = option(512, "dimensions of the decoder's blocks", at_least(4))
        decoder_depth: int = option(8, "number of its blocks", at_least(1))
        decoder_heads: int = option(16, "heads of a block's attention", at_least(1))
        normalize_pixels: bool = option(True, "pixels to reconstruct are normalized, each patch by itself")

    def __init__(self, encoder: nn.Module, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.settings = settings
        network = network_of(encoder)
        require_patches(network)
        embedding = network.patch_embed
        self.grid: tuple[int, int] = embedding.grid_size
        self.patch: tuple[int, int] = embedding.patch_size
        self.visible = visible_count(embedding.num_patches, settings.mask)
        pixels = embedding.proj.weight[0].numel()
        self.decoder = Decoder(network.embed_dim, network.num_prefix_tokens, self.grid, pixels, settings)

    def forward(self, views: list[Tensor]) -> Output:
        [images] = views
        self._check(images)
        patches = patch_pixels(images, *self.patch)
        order = draw_order(self.place, *patches.shape[:2], images.device)
        tokens = visible_tokens(network_of(self.encoder), images, order[:, : self.visible])
        predicted = self.decoder(tokens, order)
        target = rows(patches, order[:, self.visible :])
        if self.settings.normalize_pixels:
            mean, deviation = scale_of(target)
            target = (target - mean) / deviation
        loss = (predicted - target).square().mean()
        return Output(loss, tokens[:, 0])

    def illustrate(self, images: Tensor) -> list[Tensor]:
        """Masked, and reconstructed. Normalized pixels get the mean and the deviation of the patch that was masked."""
        patches = patch_pixels(images, *self.patch)
        order = draw_order(BatchPlace(self.place.seed), *patches.shape[:2], images.device)
        masked = order[:, self.visible :]
        predicted = self.decoder(visible_tokens(network_of(self.encoder), images, order[:, : self.visible]), order)
        if self.settings.normalize_pixels:
            mean, deviation = scale_of(rows(patches, masked))
            predicted = predicted * deviation + mean
        into = masked[..., None].expand_as(predicted)
        return [
            pixels_of_patches(patches.scatter(1, into, content), self.grid, self.patch)
            for content in (torch.zeros_like(predicted), predicted)
        ]

    def _check(self, images: Tensor) -> None:
        height, width = (count * side for count, side in zip(self.grid, self.patch, strict=True))
        if images.shape[2:] != (height, width):
            raise TrainerError(
                f"method=mae: the backbone was built for pictures of {height} x {width} pixels, and the views have "
                f"{images.shape[2]} x {images.shape[3]}. Give backbone.options img_size and patch_size to match data.size."
            )


class Decoder(nn.Module):
    """Blocks of timm's that see the visible patches' tokens and, where patches are masked, a token that is learned."""

    positions: Tensor

    def __init__(self, dim: int, prefix: int, grid: tuple[int, int], pixels: int, settings: MAE.Settings) -> None:
        from timm.layers import LayerNorm  # takes its time, and only MAE needs it
        from timm.models.vision_transformer import Block

        super().__init__()
        width, heads = settings.decoder_width, settings.decoder_heads
        if width % 4 or width % heads:
            raise TrainerError(
                f"method.decoder_width={width} must be a multiple of 4 and of method.decoder_heads={heads}."
            )
        self.prefix = prefix
        self.embedding = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        positions = sine_cosine_positions(*grid, width)[:, 1:]
        self.register_buffer("positions", positions, persistent=False)
        self.blocks = nn.Sequential(
            *(Block(width, heads, qkv_bias=True, norm_layer=LayerNorm) for _ in range(settings.decoder_depth))
        )
        self.norm = LayerNorm(width)  # with 1e-6 below the root, as MAE's
        self.head = nn.Linear(width, pixels)
        self.apply(fill_as_mae)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, tokens: Tensor, order: Tensor) -> Tensor:
        """The encoder's tokens `(batch, prefix + visible, dim)` and all patches in the order in which the visible ones come
        first: to the pixels `(batch, masked, pixels)` of the others. Attention asks for no order, so none is restored."""
        tokens = self.embedding(tokens)
        visible = tokens.shape[1] - self.prefix
        masked = self.mask_token.to(tokens.dtype).expand(len(tokens), order.shape[1] - visible, -1)
        patches = torch.cat([tokens[:, self.prefix :], masked], dim=1)
        patches = patches + rows(self.positions.expand(len(tokens), -1, -1), order)
        tokens = self.blocks(torch.cat([tokens[:, : self.prefix], patches], dim=1))
        return self.head(self.norm(tokens[:, self.prefix + visible :]))


def scale_of(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Each patch's mean and deviation over its pixels and channels."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return mean, (variance + 1e-6).sqrt()
