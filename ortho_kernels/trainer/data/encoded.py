"""Pictures that stay files, or bytes of files, until a batch needs them."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median
from typing import TypeVar

import torch
from torch import Tensor

from ..distributed.processes import print_once
from .broken import BrokenPictures
from .decoding import PictureError, decode, header_error
from .images import Images, MemoryImages
from .picture_sources import Sources

Result = TypeVar("Result")
BLOCK = 1000  # pictures; an error stops the work at the end of its block
TRIED = 15  # pictures that show how long one takes
SHORT_SECONDS = 3e-4
FIRST_SECONDS, LINE_SECONDS = 3.0, 15.0


class EncodedImages(Images):
    """Each picture is scaled and center-cropped to `size` x `size` when it is decoded.

    A picture that can't be decoded is left out of what is read and goes to `broken`; without that list it stops the
    run. Either way its name is printed.
    """

    in_memory = False

    def __init__(self, sources: Sources, labels: Tensor, size: int, broken: BrokenPictures | None = None) -> None:
        self.sources = sources
        self.labels = labels
        self.size = size
        self.broken = broken

    def read(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        pixels = self._room(len(indices))
        errors = [self._decode_into(row, index) for row, index in zip(pixels, indices.tolist(), strict=True)]
        readable = self._readable(indices, errors)
        return (pixels if readable.all() else pixels[readable]), readable

    def select(self, indices: Tensor) -> "EncodedImages":
        return EncodedImages(self.sources.select(indices), self.labels[indices], self.size, self.broken)

    def with_readable_headers(self) -> "EncodedImages":
        """Those whose header can be read."""

        def check(index: int) -> PictureError | None:
            return header_error(partial(self.sources.open, index), self.sources.name(index))

        everything = torch.arange(len(self))
        readable = self._readable(everything, results_of("Reading headers", check, len(self)))
        return self if readable.all() else self.select(everything[readable])

    def decode(self) -> MemoryImages:
        """Those that can be decoded, in memory."""
        pixels = self._room(len(self))
        errors = results_of("Decoding", lambda index: self._decode_into(pixels[index], index), len(self))
        everything = torch.arange(len(self))
        readable = everything[self._readable(everything, errors)]
        if len(readable) < len(self):  # close the gaps: rows move toward the start, a piece at a time
            for target, source in zip(pixels[: len(readable)].split(1000), readable.split(1000), strict=True):
                target.copy_(pixels[source])
        return MemoryImages(pixels[: len(readable)], self.labels[readable])

    def _room(self, count: int) -> Tensor:
        return torch.empty(count, 3, self.size, self.size, dtype=torch.uint8)

    def _decode_into(self, target: Tensor, index: int) -> PictureError | None:
        try:
            target.copy_(decode(partial(self.sources.open, index), self.sources.name(index), self.size))
        except PictureError as error:
            return error
        return None

    def _readable(self, indices: Tensor, errors: Iterable[PictureError | None]) -> Tensor:
        """Which of the pictures have no error, as bool `(len(indices),)`; the others are reported."""
        readable = torch.ones(len(indices), dtype=torch.bool)
        for place, error in enumerate(errors):
            if error is None:
                continue
            if self.broken is None:
                raise PictureError(f"{error} {self.sources.cure}")
            self.broken.add(self.sources.name(int(indices[place])), error)
            readable[place] = False
        return readable


def results_of(title: str, work: Callable[[int], Result], count: int) -> Iterator[Result]:
    """`work(0)` to `work(count - 1)`, the results in order.

    Threads share it, as PIL reads and decodes outside of Python's lock. What takes less than SHORT_SECONDS one thread does:
    several would wait for the lock longer. Work that takes long prints how far it is.
    """
    due = time.monotonic() + FIRST_SECONDS
    seconds = []
    for index in range(min(TRIED, count)):
        began = time.perf_counter()
        yield work(index)
        seconds.append(time.perf_counter() - began)
    is_short = bool(seconds) and median(seconds) < SHORT_SECONDS
    with ThreadPoolExecutor() as pool:
        for start in range(TRIED, count, BLOCK):
            end = min(start + BLOCK, count)
            block = range(start, end)
            yield from map(work, block) if is_short else pool.map(work, block)
            if time.monotonic() >= due and end < count:
                print_once(f"{title}: {end:,} of {count:,} pictures ...")
                due = time.monotonic() + LINE_SECONDS
