"""Describable Textures (Cimpoi et al. 2014): 47 textures, 1,880 photos each to train on, to validate and to test on.

Of the ten ways to split that are published the first is the default. Training takes both `train` and `val`, 3,760 photos,
as Ericsson et al. (CVPR 2021) do (`linear.py` of their ssl-transfer).
"""

from dataclasses import dataclass, field
from typing import Any

from torchvision import datasets

from ..options import between, option
from .imagefolder import imagenet_views
from .torchvision_pictures import TorchvisionPictures
from .view_settings import ViewSettings


@dataclass
class DTD(TorchvisionPictures):
    name: str = "dtd"
    size: int = 224
    decode_size: int | None = 256
    partition: int = option(1, "which of the ten published splits", between(1, 10))
    views: ViewSettings = field(default_factory=imagenet_views)

    title = "DTD"
    train_splits = ("train", "val")

    def dataset(self, root: str, split: str, download: bool) -> Any:
        return datasets.DTD(root, split, self.partition, download=download, loader=str)
