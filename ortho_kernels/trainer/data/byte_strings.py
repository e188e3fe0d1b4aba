"""Many byte strings in one buffer, which processes share: a million paths as Python strings take 300 MB in each."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

Strings = TypeVar("Strings", bound="ByteStrings")


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
