"""Data sources, one a file. A new source is a file here and a line in SOURCES."""

from collections.abc import Callable
from typing import Any, NamedTuple

from .digits import DigitsSettings, load_digits
from .fashion_mnist import FashionMNISTSettings, load_fashion_mnist
from .imagefolder import ImageFolderSettings, load_imagefolder
from .images import Images, Splits


class Source(NamedTuple):
    settings: type[Any]
    load: Callable[[Any], Splits]


SOURCES = {
    "fashion_mnist": Source(FashionMNISTSettings, load_fashion_mnist),
    "digits": Source(DigitsSettings, load_digits),
    "imagefolder": Source(ImageFolderSettings, load_imagefolder),
}

__all__ = ["SOURCES", "Images", "Source", "Splits"]
