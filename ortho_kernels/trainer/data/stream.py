"""The batches of a whole run as one numbered stream, which can be entered anywhere."""

import multiprocessing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..distributed.processes import ALONE, Ranks
from ..errors import TrainerError
from ..randomness import generator_for
from .images import Images

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


class BatchStream:
    """Yields `(pixels, number)` from where it stands; Lightning saves and restores the position through `state_dict`.

    Pictures that have to be decoded are decoded ahead by worker processes. Where a picture is broken, another stands in
    for it: pretraining uses no labels.
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
        pinned = torch.cuda.is_available()  # a copy from other memory would make the host wait
        # The position is counted here, where batches are taken, not where workers prepare them ahead.
        for number, pixels in zip(numbers, self._pixels(numbers), strict=True):
            if isinstance(pixels, TrainerError):
                raise pixels
            self.position = number + 1
            yield pixels.pin_memory() if pinned else pixels, number

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position, "images": len(self.images)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        if (images := state.get("images", len(self.images))) != len(self.images):
            raise TrainerError(
                f"The checkpoint comes from {images} training images, but the data has {len(self.images)} now, which gives "
                "another order: bring the same files back, or start a new run without resume."
            )
        self.position = state["position"]

    def _pixels(self, numbers: range) -> Iterable[Tensor | TrainerError]:
        batches = _Batches(self.images, self.order)
        if self.workers == 0:
            return (batches[number] for number in numbers)
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
    """Batches by their number, with the order of the epoch at hand kept.

    An error is returned: if a worker process raised it, it would end the worker, and its words would be lost.
    """

    def __init__(self, images: Images, order: Order) -> None:
        self.images = images
        self.order = order
        self.epoch = -1
        self.permutation = torch.empty(0)

    def __getitem__(self, number: int) -> Tensor | TrainerError:
        epoch, place = divmod(number, self.order.per_epoch)
        if self.epoch != epoch:
            self.permutation = torch.empty(0)  # frees the last one before the next is made
            self.epoch, self.permutation = epoch, self.order.epoch(epoch)
        try:
            return self._whole(number, self.order.part(self.permutation, place))
        except TrainerError as error:
            return error

    def _whole(self, number: int, indices: Tensor) -> Tensor:
        """The pictures, with others in the places of those that can't be decoded."""
        pixels, readable = self.images.read(indices)
        if readable.all():
            return pixels
        whole = pixels.new_empty(len(indices), *pixels.shape[1:])
        whole[readable] = pixels
        for place in (~readable).nonzero().flatten().tolist():
            whole[place] = self._stand_in(number, self.order.first + place)
        return whole

    def _stand_in(self, number: int, place: int) -> Tensor:
        for index in self.order.stand_ins(number, place):
            pixels, _ = self.images.read(index)
            if len(pixels):
                return pixels[0]
        raise TrainerError(f"None of {STAND_INS:,} pictures drawn at random can be decoded: are they still there?")
