"""What the sources of encoded pictures have in common: how a picture is decoded, kept, and given up."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import TrainerError
from ..options import at_least, one_of, option
from .base import Source
from .broken import BrokenPictures
from .encoded import EncodedImages
from .images import Images, Splits
from .left_out import LeftOut
from .picture_sources import Sources

GIB = 1024**3


@dataclass
class EncodedSource(Source):
    size: int = 32
    decode_size: int | None = option(
        None, "shorter side of pictures in memory, and in evaluation; by default that of views", at_least(1)
    )
    memory_gib: float = option(4.0, "decode once into memory what takes no more", at_least(0))
    pipeline: str | None = option(
        None, "who cuts crops: the device from pictures in memory, or workers from files", one_of("device", "workers")
    )
    # A score must not change because pictures are gone. Without labels nothing but a count changes, and what people
    # gather has broken pictures in it.
    corrupt: str | None = option(
        None, "stop at a picture that cannot be decoded, or skip it; null skips without labels", one_of("stop", "skip")
    )

    def without_labels(self, sources: Sources, left_out: LeftOut) -> Splits:
        """All pictures are there to pretrain on."""
        broken = BrokenPictures()
        images = self.encoded(sources, torch.full((len(sources),), -1), broken if self.corrupt != "stop" else None)
        # Headers are not read here: others stand in for broken pictures, and no label is lost with them.
        return Splits(unlabeled=self.ready([images], read_headers=False)[0], broken=broken, left_out=left_out)

    def encoded(self, sources: Sources, labels: Tensor, broken: BrokenPictures | None) -> EncodedImages:
        """With a list for broken pictures these are left out, else the first one stops the run."""
        return EncodedImages(sources, labels, self.decode_size or self.size, broken)

    def ready(self, sets: Sequence[EncodedImages], read_headers: bool) -> list[Images]:
        """Decoded, where all of them fit the memory allowed; else, on demand, without those whose header is broken."""
        decoded_by_workers = self.pipeline == "workers" or self.views.transform is not None
        in_memory = not decoded_by_workers and sum(each.bytes_in_memory() for each in sets) / GIB <= self.memory_gib
        return [_ready(images, in_memory, read_headers) for images in sets]


def _ready(images: EncodedImages, in_memory: bool, read_headers: bool) -> Images:
    readable: Images = images
    if in_memory:
        readable = images.decode_whole()
    elif images.broken is not None and read_headers:  # this takes long for a million files
        readable = images.with_readable_headers()
    if len(readable) == 0:
        raise TrainerError(f"None of the {len(images)} pictures can be decoded, {images.sources.name(0)} among them.")
    return readable
