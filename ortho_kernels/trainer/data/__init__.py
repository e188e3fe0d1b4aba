"""Data sources, one a file. A new source is a file here and a line in SOURCES."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ..distributed.processes import Ranks
from ..errors import TrainerError
from .cifar import CIFAR10Settings, CIFAR100Settings, load_cifar10, load_cifar100
from .digits import DigitsSettings, load_digits
from .fashion_mnist import FashionMNISTSettings, load_fashion_mnist
from .imagefolder import ImageFolderSettings, ImageNet100Settings, ImageNetSettings, load_imagefolder
from .images import Images, MemoryImages, Splits, require_variance
from .stl10 import STL10Settings, load_stl10


class Source(NamedTuple):
    settings: type[Any]
    load: Callable[[Any], Splits]


SOURCES = {
    "fashion_mnist": Source(FashionMNISTSettings, load_fashion_mnist),
    "digits": Source(DigitsSettings, load_digits),
    "cifar10": Source(CIFAR10Settings, load_cifar10),
    "cifar100": Source(CIFAR100Settings, load_cifar100),
    "stl10": Source(STL10Settings, load_stl10),
    "imagenet100": Source(ImageNet100Settings, load_imagefolder),
    "imagenet1k": Source(ImageNetSettings, load_imagefolder),
    "imagefolder": Source(ImageFolderSettings, load_imagefolder),
}


def load_splits(settings: Any, ranks: Ranks) -> Splits:
    """The data of a run, which has to be the same on each of its processes: they draw by the number of pictures."""
    splits = SOURCES[settings.name].load(settings)
    for purpose, images in (("fit the probe on", splits.train), ("test on", splits.test)):
        if len(images) < 2:
            raise TrainerError(f"data={settings.name} has 1 picture to {purpose}: a score needs 2 at least.")
    here = [len(images) for images in (splits.pretraining, splits.train, splits.test)]
    first = ranks.broadcast(here)
    if here != first:
        raise TrainerError(
            f"Process {ranks.rank} has {here} pictures (to pretrain on, to fit the probe on, to test on), but process 0 "
            f"has {first}. See that all machines read the same files."
        )
    return splits


__all__ = ["SOURCES", "Images", "MemoryImages", "Source", "Splits", "load_splits", "require_variance"]
