"""STL-10 (Coates et al. 2011): 100,000 pictures without labels, 5,000 + 8,000 with, 96 x 96, 10 classes.

The pictures without labels (2.8 GB) are mapped from their file, not read into memory.
"""

import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torchvision import datasets

from ..options import option
from .base import Source
from .fetching import data_root, fetch
from .images import Images, MemoryImages, Splits
from .view_settings import ViewSettings

UNLABELED = "unlabeled_X.bin"


@dataclass
class STL10(Source):
    name: str = "stl10"
    root: str | None = option(None, "folder of the files; by default the user's cache")
    size: int = 96
    views: ViewSettings = field(default_factory=lambda: ViewSettings(min_area=0.08))

    def load(self) -> Splits:
        root = data_root(self.root)
        files = partial(datasets.STL10, str(root))
        train, test = (fetch("STL-10", root, partial(files, split=split)) for split in ("train", "test"))
        unlabeled = MappedImages(root / datasets.STL10.base_folder / UNLABELED)
        return Splits(_images(train), _images(test), list(train.classes), unlabeled)


class MappedImages(MemoryImages):
    """The pictures of a file, none of them labeled. Another process maps the file too, and gets no copy."""

    def __init__(self, path: Path) -> None:
        pixels = map_pictures(path)
        super().__init__(pixels, torch.full((len(pixels),), -1))
        self.path = path

    def __reduce__(self) -> tuple[type["MappedImages"], tuple[Path]]:
        return MappedImages, (self.path,)


def map_pictures(path: Path, size: int = 96) -> Tensor:
    """The pictures of a file, each stored channel by channel and column by column, as `(images, 3, rows, columns)`."""
    pixels = torch.from_file(str(path), shared=False, size=os.path.getsize(path), dtype=torch.uint8)
    return pixels.view(-1, 3, size, size).transpose(2, 3)


def _images(dataset: datasets.STL10) -> Images:
    return MemoryImages(torch.from_numpy(dataset.data), torch.from_numpy(dataset.labels).long())
