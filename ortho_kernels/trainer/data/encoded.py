"""Pictures that stay files, or bytes of files, until a batch needs them."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import mean, median

import torch
from PIL import Image
from torch import Tensor

from ..distributed.processes import print_once
from .broken import BrokenPictures
from .decoding import PictureError, header_error, middle_square, named, scaled_size, whole_pixels
from .images import Images, MemoryImages, Result
from .picture_sources import Sources
from .whole_pictures import WholePictures, pack

BLOCK = 1000  # pictures; an error stops the work at the end of its block
SAMPLED = 100  # headers that show how large pictures are
TRIED = 15  # pictures that show how long one takes
SHORT_SECONDS = 3e-4
FIRST_SECONDS, LINE_SECONDS = 3.0, 15.0


class EncodedImages(Images):
    """A picture that can't be decoded is left out of what is read and goes to `broken`; without that list it stops the
    run. Either way its name is printed.
    """

    in_memory = False
    pipeline = "workers"

    def __init__(self, sources: Sources, labels: Tensor, size: int, broken: BrokenPictures | None = None) -> None:
        self.sources = sources
        self.labels = labels
        self.size = size  # of the squares that evaluation sees, and of the shorter side of `whole`
        self.broken = broken

    @property
    def channels(self) -> int:
        return 3

    def read(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        pixels = self._room(len(indices))
        errors = [self._decode_into(row, index) for row, index in zip(pixels, indices.tolist(), strict=True)]
        readable = self._readable(indices, errors)
        return (pixels if readable.all() else pixels[readable]), readable

    def whole(self, indices: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        found = [self.attempt(index, self._scaled) for index in indices.tolist()]
        readable = torch.tensor([picture is not None for picture in found], dtype=torch.bool)
        return [picture for picture in found if picture is not None], readable

    def attempt(self, index: int, work: Callable[[Image.Image], Result]) -> Result | None:
        result = self._try(index, work)
        if not isinstance(result, PictureError):
            return result
        self._report(index, result)
        return None

    def select(self, indices: Tensor) -> "EncodedImages":
        return EncodedImages(self.sources.select(indices), self.labels[indices], self.size, self.broken)

    def with_readable_headers(self) -> "EncodedImages":
        """Those whose header can be read."""

        def check(index: int) -> PictureError | None:
            return header_error(partial(self.sources.open, index), self.sources.name(index))

        everything = torch.arange(len(self))
        readable = self._readable(everything, results_of("Reading headers", check, len(self)))
        return self if readable.all() else self.select(everything[readable])

    def bytes_in_memory(self) -> float:
        """About what `decode_whole` takes, by the headers of some; at least what squares would."""
        tried = [self._try(index * len(self) // SAMPLED, _longer_side_of(self.size)) for index in range(SAMPLED)]
        longer = [side for side in tried if not isinstance(side, PictureError)] or [self.size]
        return 3.0 * self.size * mean(longer) * len(self)

    def decode_whole(self) -> WholePictures:
        """Those that can be decoded, whole, in memory."""
        readable = torch.ones(len(self), dtype=torch.bool)

        def decoded() -> Iterator[Tensor]:
            found = results_of("Decoding", lambda index: self._try(index, self._scaled), len(self))
            for index, picture in enumerate(found):
                if isinstance(picture, PictureError):
                    self._report(index, picture)
                    readable[index] = False
                else:
                    yield picture

        blocks, places = pack(decoded())
        return WholePictures(blocks, places, self.labels[readable])

    def decode(self) -> MemoryImages:
        """The middle squares of those that can be decoded, in memory."""
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

    def _scaled(self, image: Image.Image) -> Tensor:
        return whole_pixels(image, self.size)

    def _decode_into(self, target: Tensor, index: int) -> PictureError | None:
        pixels = self._try(index, self._scaled)
        if isinstance(pixels, PictureError):
            return pixels
        target.copy_(middle_square(pixels))
        return None

    def _try(self, index: int, work: Callable[[Image.Image], Result]) -> Result | PictureError:
        try:
            with named(self.sources.name(index)), self.sources.open(index) as image:
                return work(image)
        except PictureError as error:
            return error

    def _readable(self, indices: Tensor, errors: Iterable[PictureError | None]) -> Tensor:
        """Which of the pictures have no error, as bool `(len(indices),)`; the others are reported."""
        readable = torch.ones(len(indices), dtype=torch.bool)
        for place, error in enumerate(errors):
            if error is not None:
                self._report(int(indices[place]), error)
                readable[place] = False
        return readable

    def _report(self, index: int, error: PictureError) -> None:
        if self.broken is None:
            raise PictureError(f"{error} {self.sources.cure}")
        self.broken.add(self.sources.name(index), error)


def _longer_side_of(size: int) -> Callable[[Image.Image], int]:
    return lambda image: max(scaled_size(*image.size, size))


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
