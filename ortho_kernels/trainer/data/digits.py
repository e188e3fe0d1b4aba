"""The 1,797 handwritten digits that scikit-learn carries (8 x 8, gray): no download, for tests and first steps."""

from dataclasses import dataclass, field

import torch

from ..options import at_least, option
from .images import MemoryImages, Splits
from .views import ViewSettings


@dataclass
class DigitsSettings:
    name: str = "digits"
    size: int = option(8, "side of the large views in pixels", at_least(1))
    views: ViewSettings = field(default_factory=lambda: ViewSettings(min_area=0.5, flip=0.0, blur=0.0))


def load_digits(settings: DigitsSettings) -> Splits:
    from sklearn.datasets import load_digits as sklearn_digits  # seconds to import, and no other source needs it

    bunch = sklearn_digits()
    pixels = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(bunch.target).long()
    test = torch.arange(len(labels)) % 4 == 3  # the file mixes writers, so every fourth is a fair sample
    return Splits(
        train=MemoryImages(pixels[~test], labels[~test]),
        test=MemoryImages(pixels[test], labels[test]),
        classes=[str(digit) for digit in range(10)],
    )
