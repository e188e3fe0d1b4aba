"""The shapes of the conv and linear weights of well-known models, written out: no library is needed to know them."""

from __future__ import annotations

from collections.abc import Callable

Shapes = list[tuple[int, ...]]


def resnet18() -> Shapes:
    """He et al. (2016), with the 3 x 3 stem for images of 32 x 32."""
    shapes: Shapes = [(64, 3, 3, 3)]
    before = 64
    for width in (64, 128, 256, 512):
        for block in range(2):
            shapes += [(width, before, 3, 3), (width, width, 3, 3)]
            if block == 0 and before != width:
                shapes.append((width, before, 1, 1))
            before = width
    return [*shapes, (1000, 512)]


def resnet50() -> Shapes:
    """He et al. (2016)."""
    shapes: Shapes = [(64, 3, 7, 7)]
    before = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            shapes += [(width, before, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)]
            if block == 0:
                shapes.append((4 * width, before, 1, 1))
            before = 4 * width
    return [*shapes, (1000, 2048)]


def wrn28_2() -> Shapes:
    """Zagoruyko and Komodakis (2016): three stages of four blocks, 16 times 2 channels wide, for 10 classes."""
    shapes: Shapes = [(16, 3, 3, 3)]
    before = 16
    for width in (32, 64, 128):
        for block in range(4):
            shapes += [(width, before, 3, 3), (width, width, 3, 3)]
            if block == 0:
                shapes.append((width, before, 1, 1))
            before = width
    return [*shapes, (10, 128)]


def vit(width: int, blocks: int) -> Shapes:
    """Dosovitskiy et al. (2021), patches of 16 x 16; queries, keys and values in one weight, as timm has them."""
    block = [(3 * width, width), (width, width), (4 * width, width), (width, 4 * width)]
    return [(width, 3, 16, 16), *block * blocks, (1000, width)]


def transformer(width: int, key_width: int, hidden: int, blocks: int) -> Shapes:
    """A decoder with grouped-query attention and a gated MLP, without its embedding and head."""
    block = [(width, width), (key_width, width), (key_width, width), (width, width)]
    block += [(hidden, width), (hidden, width), (width, hidden)]
    return block * blocks


MODELS: dict[str, Callable[[], Shapes]] = {
    "tiny": lambda: [(8, 8)] * 21,  # as many as a ResNet-18 has: what a call costs beside its arithmetic
    "resnet18": resnet18,
    "resnet50": resnet50,
    "wrn28_2": wrn28_2,
    "vit_tiny": lambda: vit(192, 12),
    "vit_small": lambda: vit(384, 12),
    "vit_base": lambda: vit(768, 12),
    "vit_large": lambda: vit(1024, 24),
    "transformer_1b": lambda: transformer(2048, 512, 8192, 16),  # as Llama 3.2 1B
    "transformer_8b": lambda: transformer(4096, 1024, 14336, 32),  # as Llama 3.1 8B
}
