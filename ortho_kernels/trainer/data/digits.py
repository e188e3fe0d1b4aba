"""The 1,797 handwritten digits that scikit-learn carries (8 x 8, gray): no download, for tests and first steps."""

from dataclasses import dataclass, field

import torch

from .base import Source
from .images import MemoryImages, Splits
from .view_settings import ViewSettings


@dataclass
class Digits(Source):
    name: str = "digits"
    size: int = 8
    views: ViewSettings = field(default_factory=lambda: ViewSettings(min_area=0.5, flip=0.0, blur=0.0))

    def load(self) -> Splits:
        from sklearn.datasets import load_digits  # seconds to import, and no other source needs it

        bunch = load_digits()
        pixels = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
        labels = torch.from_numpy(bunch.target).long()
        test = torch.arange(len(labels)) % 4 == 3  # the file mixes writers, so every fourth is a fair sample
        return Splits(
            train=MemoryImages(pixels[~test], labels[~test]),
            test=MemoryImages(pixels[test], labels[test]),
            classes=[str(digit) for digit in range(10)],
        )
