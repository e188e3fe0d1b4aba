"""Oxford 102 Flowers (Nilsback, Zisserman 2008): photos of 102 flowers, 1,020 + 1,020 to train on and 6,149 to test on.

Training takes both `train` and `val`, 2,040 photos, as Ericsson et al. (CVPR 2021) do (`linear.py` of their ssl-transfer).
"""

from dataclasses import dataclass, field
from typing import Any

from torchvision import datasets

from .imagefolder import imagenet_views
from .torchvision_pictures import TorchvisionPictures
from .view_settings import ViewSettings


@dataclass
class Flowers102(TorchvisionPictures):
    name: str = "flowers102"
    size: int = 224
    decode_size: int | None = 256
    views: ViewSettings = field(default_factory=imagenet_views)

    title = "Flowers-102"
    train_splits = ("train", "val")

    def dataset(self, root: str, split: str, download: bool) -> Any:
        return datasets.Flowers102(root, split, download=download, loader=str)
