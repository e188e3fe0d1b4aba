"""What pictures are decoded from: paths, or the bytes of files, in one buffer that processes share.

A million paths as Python strings would take 300 MB in each process.
"""

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from ..errors import printable

Strings = TypeVar("Strings", bound="ByteStrings")
Chosen = TypeVar("Chosen", bound="Sources")


class ByteStrings:
    """Strings that begin alike: string i is `prefix` and the `lengths[i]` bytes of `buffer` from `starts[i]` on.

    Tensors that are pickled for another process move to shared memory, so a worker holds no copy.
    """

    def __init__(self, prefix: bytes, buffer: Tensor, starts: Tensor, lengths: Tensor) -> None:
        self.prefix = prefix
        self.buffer = buffer  # uint8
        self.starts = starts  # int64
        self.lengths = lengths  # int64

    @classmethod
    def of(cls: type[Strings], prefix: bytes, strings: Sequence[bytes]) -> Strings:
        lengths = torch.tensor([len(string) for string in strings])
        buffer = torch.frombuffer(bytearray(b"".join(strings)), dtype=torch.uint8)
        return cls(prefix, buffer, lengths.cumsum(0) - lengths, lengths)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> bytes:
        start, length = int(self.starts[index]), int(self.lengths[index])
        return self.prefix + self.buffer[start : start + length].numpy().tobytes()

    def select(self: Strings, indices: Tensor) -> Strings:
        """These strings alone, from the same buffer."""
        return type(self)(self.prefix, self.buffer, self.starts[indices], self.lengths[indices])


LEAVE_OUT = "leave out what is broken: data.corrupt=skip"


class Sources(ABC):
    """What pictures are decoded from, by number. Threads share it, and it is pickled for worker processes."""

    cure: str  # what to do about one that is broken

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def select(self: Chosen, indices: Tensor) -> Chosen:
        """These pictures alone."""

    @abstractmethod
    def open(self, index: int) -> Image.Image:
        """The picture, its header read."""

    @abstractmethod
    def name(self, index: int) -> str:
        """For people."""


class PictureFiles(ByteStrings, Sources):
    """The strings are paths."""

    cure = f"Replace it, remove it, or {LEAVE_OUT}."

    def open(self, index: int) -> Image.Image:
        return Image.open(os.fsdecode(self[index]))

    def name(self, index: int) -> str:
        return printable(os.fsdecode(self[index]))


class PictureBytes(ByteStrings, Sources):
    """The strings are contents of files."""

    cure = "Fetch the file that holds it again."

    def open(self, index: int) -> Image.Image:
        return Image.open(io.BytesIO(self[index]))

    def name(self, index: int) -> str:
        return f"number {index}"
