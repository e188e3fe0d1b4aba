"""Self-supervised methods, one a file. A new method is a file here and a line in METHODS."""

from .base import Method, MethodSettings, Output
from .byol import BYOL
from .simclr import SimCLR

METHODS: dict[str, type[Method]] = {"byol": BYOL, "simclr": SimCLR}

__all__ = ["METHODS", "Method", "MethodSettings", "Output"]
