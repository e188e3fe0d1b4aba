"""Food-101 (Bossard et al. 2014): 75,750 + 25,250 photos of 101 dishes. The training photos are not cleaned."""

from dataclasses import dataclass, field
from typing import Any

from torchvision import datasets

from .imagefolder import imagenet_views
from .torchvision_pictures import TorchvisionPictures
from .view_settings import ViewSettings


@dataclass
class Food101(TorchvisionPictures):
    name: str = "food101"
    size: int = 224
    decode_size: int | None = 256
    views: ViewSettings = field(default_factory=imagenet_views)

    title = "Food-101"

    def dataset(self, root: str, split: str, download: bool) -> Any:
        return datasets.Food101(root, split, download=download, loader=str)
