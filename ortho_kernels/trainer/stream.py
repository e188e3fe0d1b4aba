"""The batches of a whole run as one numbered stream, which can be entered anywhere."""

import multiprocessing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .data import Images
from .errors import TrainerError
from .processes import ALONE, Ranks
from .randomness import generator_for


@dataclass(frozen=True)
class Order:
    """Which pictures batch `number` holds; it lies in epoch `number // per_epoch`.

    The order of an epoch is a function of (seed, epoch) alone, so the position is all that a checkpoint has to keep. A
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
        return torch.randperm(self.images, generator=generator_for("cpu", self.seed, "order", epoch))

    def part(self, permutation: Tensor, place: int) -> Tensor:
        """This process's part of the batch at a place of an epoch."""
        size = self.batch_size // self.ranks.count
        start = place * self.batch_size + self.ranks.rank * size
        return permutation[start : start + size]


class BatchStream:
    """Yields `(pixels, number)` from where it stands; Lightning saves and restores the position through `state_dict`.

    Pictures that have to be decoded are decoded ahead by worker processes.
    """

    def __init__(self, images: Images, order: Order, batches: int, workers: int = 0) -> None:
        if order.batch_size > len(images):
            raise TrainerError(
                f"trainer.batch_size={order.batch_size} is larger than the data, which has {len(images)} training "
                f"image{'s' * (len(images) != 1)}: lower it, or add images."
            )
        if order.batch_size % order.ranks.count:
            raise TrainerError(
                f"trainer.batch_size={order.batch_size} can't be shared out over {order.ranks.count} processes: "
                "give a multiple of their number."
            )
        self.images = images
        self.order = order
        self.batches = batches
        self.workers = workers
        self.position = 0

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        numbers = range(self.position, self.batches)
        # The position is counted here, where batches are taken, not where workers prepare them ahead.
        for number, pixels in zip(numbers, self._pixels(numbers), strict=True):
            self.position = number + 1
            yield pixels, number

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]

    def _pixels(self, numbers: range) -> Iterable[Tensor]:
        batches = _Batches(self.images, self.order)
        if self.workers == 0:
            pixels = (batches[number] for number in numbers)
            return (each.pin_memory() for each in pixels) if torch.cuda.is_available() else pixels
        # Forking a process that computes in threads can hang; a server that has this module forks clean workers at once.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        return DataLoader(
            batches,
            sampler=numbers,
            batch_size=None,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            multiprocessing_context=context,
        )


class _Batches(Dataset):
    """Batches by their number, with the order of the epoch at hand kept."""

    def __init__(self, images: Images, order: Order) -> None:
        self.images = images
        self.order = order
        self.permutation: tuple[int, Tensor] | None = None

    def __getitem__(self, number: int) -> Tensor:
        epoch, place = divmod(number, self.order.per_epoch)
        if self.permutation is None or self.permutation[0] != epoch:
            self.permutation = epoch, self.order.epoch(epoch)
        return self.images.batch(self.order.part(self.permutation[1], place))
