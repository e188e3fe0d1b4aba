"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 50,000 + 10,000 pictures of 32 x 32 in 10 or 100 classes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torchvision import datasets

from ..errors import TrainerError
from ..options import at_least, option
from .base import Source
from .encoded import EncodedImages
from .fetching import data_root, fetch
from .images import Images, MemoryImages, Splits
from .picture_sources import PictureBytes
from .view_settings import LocalSettings, PairSettings, ViewSettings

CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def cifar_views() -> ViewSettings:
    """The asymmetric pair that solo-learn trains BYOL and others with on CIFAR, and its small views for SwAV."""
    return ViewSettings(
        min_area=0.08,
        blur=0.0,
        asymmetric=PairSettings(blur=[0.0, 0.0], solarize=[0.0, 0.2]),
        local=LocalSettings(size=18, min_area=0.08, max_area=0.5, blur=0.1, solarize=0.1),
    )


@dataclass
class CIFAR10(Source):
    name: str = "cifar10"
    root: str | None = option(None, "folder of the files, by default the user's cache; or an .npz of JPEG pictures")
    size: int = 32
    train_images: int | None = option(None, "pretrain on so many, the first of each class; all by default", at_least(1))
    views: ViewSettings = field(default_factory=cifar_views)

    def load(self) -> Splits:
        if self.root and self.root.endswith(".npz"):
            splits = load_archive(Path(self.root).expanduser())
        else:
            splits = _load(self.root, "CIFAR-10", datasets.CIFAR10)
        return _subset(splits, self.train_images)


@dataclass
class CIFAR100(CIFAR10):
    name: str = "cifar100"

    def load(self) -> Splits:
        return _subset(_load(self.root, "CIFAR-100", datasets.CIFAR100), self.train_images)


def load_archive(path: Path) -> Splits:
    """CIFAR-10 as an .npz of JPEG pictures. For each of `train` and `test`: the concatenated files, each without the
    `header` that all of them share; their offsets, `train_off` (images + 1); their classes, `train_y`."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            header = archive["header"].tobytes()
            train, test = (
                _decode(header, archive[name], archive[f"{name}_off"], archive[f"{name}_y"])
                for name in ("train", "test")
            )
    except (OSError, KeyError, ValueError) as error:
        raise TrainerError(
            f"data.root={path} is no readable archive of pictures ({error}): it needs header, train, train_off, train_y, "
            "test, test_off and test_y."
        ) from None
    return Splits(train, test, CIFAR10_CLASSES)


def _decode(header: bytes, files: np.ndarray, offsets: np.ndarray, labels: np.ndarray) -> Images:
    ends = torch.from_numpy(offsets.astype(np.int64))
    pictures = PictureBytes(header, torch.from_numpy(files), ends[:-1], ends.diff())
    return EncodedImages(pictures, torch.from_numpy(labels.astype(np.int64)), size=32).decode()


def _load(root: str | None, title: str, dataset: Callable[..., datasets.CIFAR10]) -> Splits:
    folder = data_root(root)
    train, test = (fetch(title, folder, partial(dataset, str(folder), train=train)) for train in (True, False))
    return Splits(_images(train), _images(test), list(train.classes))


def _images(dataset: datasets.CIFAR10) -> Images:
    pixels = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
    return MemoryImages(pixels, torch.tensor(dataset.targets))


def _subset(splits: Splits, images: int | None) -> Splits:
    """The first pictures of each class, as many of every class."""
    if images is None or splits.train is None:
        return splits
    labels, classes = splits.train.labels, len(splits.classes)
    each = images // classes
    if each == 0 or each > labels.bincount(minlength=classes).min():
        raise TrainerError(
            f"data.train_images={images} must be between {classes} and {len(labels)}: as many of each class."
        )
    chosen = torch.cat([(labels == label).nonzero().flatten()[:each] for label in range(classes)])
    return Splits(splits.train.select(chosen.sort().values), splits.test, splits.classes)
