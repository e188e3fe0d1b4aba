"""Pictures that stay files, or bytes of files, until a batch needs them."""

import io
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import TrainerError
from .images import Images, MemoryImages

CORRUPT = ("stop", "skip")


def pixels_of(image: Image.Image, size: int, channels: int = 3) -> Tensor:
    """The picture, scaled and center-cropped, as uint8 `(channels, size, size)`; one channel is gray."""
    mode = "L" if channels == 1 else "RGB"
    # A JPEG is decoded at a half, quarter or eighth of its size where that is still large enough.
    image.draft(mode, (size, size))
    fitted = ImageOps.fit(image.convert(mode), (size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(fitted)).view(size, size, channels).permute(2, 0, 1)


class EncodedImages(Images):
    """Each picture is scaled and centre-cropped to `size` x `size` when it is decoded.

    A picture that can't be decoded stops the run, with its name, or is skipped: the next one stands in for it, the same
    in every epoch and every process, and its name is printed once.
    """

    decoded = False

    def __init__(self, sources: Sequence[Path | bytes], labels: Tensor, size: int, corrupt: str = "stop") -> None:
        self.sources = sources
        self.labels = labels
        self.size = size
        self.corrupt = corrupt
        self.reported: set[int] = set()

    def batch(self, indices: Tensor) -> Tensor:
        return torch.stack([self._picture(index) for index in indices.tolist()])

    def select(self, indices: Tensor) -> "EncodedImages":
        sources = [self.sources[index] for index in indices.tolist()]
        return EncodedImages(sources, self.labels[indices], self.size, self.corrupt)

    def decode(self) -> MemoryImages:
        """All of them, in memory; PIL decodes outside Python's lock."""
        pixels = torch.empty(len(self), 3, self.size, self.size, dtype=torch.uint8)

        def place(index: int) -> None:
            pixels[index] = self._picture(index)

        with ThreadPoolExecutor() as pool:
            list(pool.map(place, range(len(self))))
        return MemoryImages(pixels, self.labels)

    def _picture(self, index: int) -> Tensor:
        for attempt in range(len(self)):
            current = (index + attempt) % len(self)
            try:
                return self._decoded(self.sources[current])
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                self._report(current, error)
        raise TrainerError(f"None of the {len(self)} pictures can be decoded, {self._name(0)} among them.")

    def _decoded(self, source: Path | bytes) -> Tensor:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return pixels_of(image, self.size)

    def _report(self, index: int, error: Exception) -> None:
        said = f"Cannot decode the picture {self._name(index)}: {error}."
        if self.corrupt == "stop":
            raise TrainerError(f"{said} Replace it, remove it, or leave out what is broken: data.corrupt=skip.")
        if index not in self.reported:
            self.reported.add(index)
            print(f"{said} Skipped: the next picture stands in for it.", file=sys.stderr, flush=True)

    def _name(self, index: int) -> str:
        source = self.sources[index]
        return f"number {index}" if isinstance(source, bytes) else str(source)
