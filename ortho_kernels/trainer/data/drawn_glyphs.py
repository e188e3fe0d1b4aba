"""Pictures that are drawn, not stored: each shows one glyph, of a random size and turn, at a random place."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..distributed.processes import print_once
from ..options import at_least, option
from ..randomness import host_generator_for
from .base import Source
from .decoding import to_tensor
from .fonts import Font, fingerprint
from .images import MemoryImages, Splits
from .view_settings import ViewSettings

Item = TypeVar("Item")

TEST_PART = 3  # every third glyph, on average, is tested on
SCALE = (0.6, 0.8)  # a glyph's longer side, of the picture's side
TURN = 10.0  # degrees, either way
SHIFT = (0.25, 0.75)  # the share of the room beside a glyph that lies left of it, and above it


class Glyph(NamedTuple):
    label: int
    character: str
    fonts: Sequence[Font]  # one of them draws it


@dataclass
class DrawnGlyphs(Source):
    """A subclass says which glyphs to train on and which to test on.

    Every picture is a function of `data.seed`, the set and its place in it, for the same fonts. A test glyph is drawn
    once, so the test pictures are independent of each other.
    """

    root: str | None = option(None, "folder of the fonts; by default those of Debian packages, in the user's cache")
    size: int = 32
    copies: int = option(4, "pictures of each glyph that is trained on", at_least(1))
    seed: int = option(0, "on which the split and every picture depend")
    views: ViewSettings = field(default_factory=lambda: ViewSettings(min_area=0.5, flip=0.0, blur=0.0))

    in_color: ClassVar[bool] = False

    @abstractmethod
    def glyphs(self) -> tuple[list[Glyph], list[Glyph], list[str]]:
        """Those to train on, those to test on, and the classes."""

    def load(self) -> Splits:
        train, test, classes = self.glyphs()
        count = self.copies * len(train) + len(test)
        print_once(f"data={self.name}: drawing {count:,} pictures of {len(classes)} classes ...")
        paths = sorted({font.path for glyph in (*train, *test) for font in glyph.fonts})
        return Splits(
            self._draw([glyph for glyph in train for _ in range(self.copies)], "train"),
            self._draw(test, "test"),
            classes,
            origin=f"{len(paths)} font{'s' * (len(paths) != 1)}, sha256 {fingerprint(paths)}",
        )

    def _draw(self, glyphs: Sequence[Glyph], purpose: str) -> MemoryImages:
        pictures = [self._picture(glyph, purpose, place) for place, glyph in enumerate(glyphs)]
        return MemoryImages(torch.stack(pictures), torch.tensor([glyph.label for glyph in glyphs]))

    def _picture(self, glyph: Glyph, purpose: str, place: int) -> Tensor:
        generator = host_generator_for(self.seed, f"{self.name} {purpose}", place)
        font = glyph.fonts[int(generator.integers(len(glyph.fonts)))]
        drawn = font.glyph(glyph.character, self.in_color)
        assert drawn is not None  # `glyphs` gives what can be drawn
        return to_tensor(place_at_random(drawn, self.size, generator))


def place_at_random(glyph: Image.Image, size: int, generator: np.random.Generator) -> Image.Image:
    """A square picture of the glyph: light on black for a glyph of mode L, on white for one in color (RGBA)."""
    scale = generator.uniform(*SCALE) * size / max(glyph.size)
    width, height = (max(1, round(scale * side)) for side in glyph.size)
    turned = glyph.resize((width, height), Image.Resampling.LANCZOS).rotate(
        generator.uniform(-TURN, TURN), Image.Resampling.BICUBIC, expand=True
    )
    left, top = (round(generator.uniform(*SHIFT) * (size - side)) for side in turned.size)
    if glyph.mode == "L":
        picture = Image.new("L", (size, size), 0)
        picture.paste(turned, (left, top))
    else:
        picture = Image.new("RGB", (size, size), "white")
        picture.paste(turned, (left, top), turned)
    return picture


def split(items: Sequence[Item], generator: np.random.Generator) -> tuple[list[Item], list[Item]]:
    """To train on, and a third to test on, of two items or more: each gets one at least, in the order given."""
    held_out = set(generator.permutation(len(items))[: max(1, len(items) // TEST_PART)].tolist())
    train = [item for place, item in enumerate(items) if place not in held_out]
    return train, [item for place, item in enumerate(items) if place in held_out]
