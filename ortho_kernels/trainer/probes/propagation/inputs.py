"""What goes through a network: pictures as it sees them, the same whitened, and Gaussian noise."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ...data import Images
from ...errors import TrainerError
from ...randomness import generator_for
from ..features import View
from .whitening import Whitening

INPUTS = ("noise", "whitened", "real")  # Gaussian; pictures without correlation (ZCA); as the encoder sees them
BATCH = 50  # pictures at a time


class Inputs:
    """The batches of each kind, all of as many pictures of one shape.

    Attributes:
        whitening: made of `fitted` pictures, evenly chosen; None where no kind needs it.
        pictures: how many go through a network. They are among those that the whitening was made of.
    """

    def __init__(self, images: Images, view: View, kinds: list[str], pictures: int, fitted: int, seed: int) -> None:
        self.kinds, self.seed = kinds, seed
        fitted = min(len(images), max(fitted, pictures))
        chosen = torch.arange(fitted) * len(images) // fitted
        self.whitening = Whitening(_views(images, view, chosen)) if "whitened" in kinds else None
        self.fitted = fitted
        few = chosen[torch.arange(min(pictures, fitted)) * fitted // min(pictures, fitted)]
        self._images, self._view, self._chosen = images, view, few
        self.pictures = sum(len(batch) for batch in self.batches("real"))
        if self.pictures < 2:
            raise TrainerError(
                f"A covariance takes 2 pictures at least, and {self.pictures} of the sample can be decoded."
            )

    def batches(self, kind: str) -> Iterator[Tensor]:
        """Float pictures `(batch, channels, size, size)`; the same at each call."""
        for number, images in enumerate(_views(self._images, self._view, self._chosen)):
            if kind == "noise":
                generator = generator_for("cpu", self.seed, "noise through a network", number)
                yield torch.randn(images.shape, generator=generator)
            elif kind == "whitened" and self.whitening is not None:
                yield self.whitening(images)
            else:
                yield images

    def facts(self) -> dict[str, Any]:
        """What a report says of them."""
        shape = list(next(iter(self.batches("real"))).shape[1:])
        whitening = (
            {} if self.whitening is None else {"whitened_by": self.fitted, "whitened_directions": self.whitening.rank}
        )
        return {"pictures": self.pictures, "shape": shape, **whitening}


def _views(images: Images, view: View, chosen: Tensor) -> Iterator[Tensor]:
    # Batches of nearly one size: batch norm can't take a single picture.
    for indices in chosen.tensor_split(-(-len(chosen) // BATCH)):
        if len(pixels := images.batch(indices)):
            yield view(pixels)
