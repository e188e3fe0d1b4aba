"""Data sources, one a file. A new source is a file here and a line in SOURCES."""

from ..distributed.processes import Ranks
from ..errors import TrainerError
from ..registry import Registry
from .base import Source
from .cifar import CIFAR10, CIFAR100
from .digits import Digits
from .dtd import DTD
from .emoji import Emoji
from .fashion_mnist import FashionMNIST
from .flowers102 import Flowers102
from .food101 import Food101
from .gtsrb import GTSRB
from .huggingface import HuggingFace
from .imagefolder import ImageFolder, ImageNet, ImageNet100
from .images import Images, MemoryImages, Splits, require_variance
from .mnist5k import MNIST5k
from .scripts import Scripts
from .stl10 import STL10
from .view_settings import ViewSettings

SOURCES: Registry[Source] = Registry(
    "data",
    Source,
    "ortho_kernels.data",
    {
        "fashion_mnist": FashionMNIST,
        "digits": Digits,
        "mnist5k": MNIST5k,
        "scripts": Scripts,
        "emoji": Emoji,
        "cifar10": CIFAR10,
        "cifar100": CIFAR100,
        "stl10": STL10,
        "food101": Food101,
        "flowers102": Flowers102,
        "dtd": DTD,
        "gtsrb": GTSRB,
        "imagenet100": ImageNet100,
        "imagenet1k": ImageNet,
        "imagefolder": ImageFolder,
        "huggingface": HuggingFace,
    },
)


def load_splits(source: Source, ranks: Ranks) -> Splits:
    """The data of a run, which has to be the same on each of its processes: they draw by the number of pictures."""
    splits = source.load()
    if not isinstance(splits, Splits):
        raise TrainerError(
            f"data={source.name}: load gives Splits (of {Splits.__module__}); got {type(splits).__name__}."
        )
    if len(splits.pretraining) < 2:
        raise TrainerError(f"data={source.name} has 1 picture to pretrain on: methods compare pictures, so give more.")
    if splits.labeled is not None:
        for purpose, images in zip(("fit the probe on", "test on"), splits.labeled, strict=True):
            if len(images) < 2:
                raise TrainerError(f"data={source.name} has 1 picture to {purpose}: a score needs 2 at least.")
    here = [len(images or ()) for images in (splits.pretraining, splits.train, splits.test)]
    first = ranks.broadcast(here)
    if here != first:
        raise TrainerError(
            f"Process {ranks.rank} has {here} pictures (to pretrain on, to fit the probe on, to test on), but process 0 "
            f"has {first}. See that all machines read the same files."
        )
    return splits


__all__ = ["SOURCES", "Images", "MemoryImages", "Source", "Splits", "ViewSettings", "load_splits", "require_variance"]
