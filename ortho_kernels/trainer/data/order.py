"""Which pictures each batch of a run holds."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..distributed.processes import ALONE, Ranks
from ..randomness import generator_for

STAND_INS = 1000  # broken pictures in a row that are no accident any more


@dataclass(frozen=True)
class Order:
    """Which pictures batch `number` holds; it lies in epoch `number // per_epoch`.

    The order of an epoch is a function of (seed, epoch) alone: a checkpoint has to keep the position only. A
    rest too small for a batch is left out of its epoch. Of several processes each takes its part of every batch.
    """

    images: int
    batch_size: int  # of all processes together
    seed: int
    ranks: Ranks = ALONE

    @property
    def per_epoch(self) -> int:
        return self.images // self.batch_size

    def epoch(self, epoch: int) -> Tensor:
        """The same order as in int64, in half the memory: each worker holds one."""
        generator = generator_for("cpu", self.seed, "order", epoch)
        return torch.randperm(self.images, generator=generator, dtype=torch.int32, device="cpu")

    def part(self, permutation: Tensor, place: int) -> Tensor:
        """This process's part of the batch at a place of an epoch."""
        start = place * self.batch_size + self.first
        return permutation[start : start + self.size].long()

    @property
    def size(self) -> int:
        """Of this process's part of a batch."""
        return self.batch_size // self.ranks.count

    @property
    def first(self) -> int:
        """Where this process's part begins in a batch."""
        return self.ranks.rank * self.size

    def stand_ins(self, number: int, place: int) -> Iterator[Tensor]:
        """Pictures, one after the other, for a broken one at a place of batch `number`. They depend on nothing else, so
        that they are the same for any number of workers and processes, and after a resume."""
        generator = generator_for("cpu", self.seed, "stand-in", number * self.batch_size + place)
        for _ in range(STAND_INS):
            yield torch.randint(self.images, (1,), generator=generator, device="cpu")
