"""The batches of a whole run as one numbered stream, which can be entered anywhere."""

import multiprocessing
from collections.abc import Iterable, Iterator

import torch
from torch.utils.data import DataLoader, Dataset

from ..errors import TrainerError
from .images import Images
from .order import Order
from .pipelines import DevicePipeline, Pictures, Pipeline


class BatchStream:
    """Yields `(pictures, number)` from where it stands; Lightning saves and restores the position through `state_dict`.

    Worker processes prepare batches ahead where pictures have to be decoded. Where a picture is broken, another stands in
    for it: pretraining uses no labels.
    """

    def __init__(
        self, images: Images, order: Order, batches: int, workers: int = 0, pipeline: Pipeline | None = None
    ) -> None:
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
        self.pipeline = pipeline or DevicePipeline()
        self.position = 0

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[tuple[Pictures, int]]:
        numbers = range(self.position, self.batches)
        # The position is counted here, where batches are taken, not where workers prepare them ahead.
        for number, pictures in zip(numbers, self._prepared(numbers), strict=True):
            if isinstance(pictures, TrainerError):
                raise pictures
            self.position = number + 1
            yield pinned(pictures), number

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position, "images": len(self.images)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        if (images := state.get("images", len(self.images))) != len(self.images):
            raise TrainerError(
                f"The checkpoint comes from {images} training images, but the data has {len(self.images)} now, which gives "
                "another order: bring the same files back, or start a new run without resume."
            )
        self.position = state["position"]

    def _prepared(self, numbers: range) -> Iterable[Pictures | TrainerError]:
        batches = _Batches(self.images, self.order, self.pipeline)
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


def pinned(pictures: Pictures) -> Pictures:
    """In pinned memory where there is a GPU: a copy from other memory would make the host wait."""
    if not torch.cuda.is_available():
        return pictures
    return [view.pin_memory() for view in pictures] if isinstance(pictures, list) else pictures.pin_memory()


class _Batches(Dataset):
    """Batches by their number, with the order of the epoch at hand kept.

    An error is returned: if a worker process raised it, it would end the worker, and its words would be lost.
    """

    def __init__(self, images: Images, order: Order, pipeline: Pipeline) -> None:
        self.images = images
        self.order = order
        self.pipeline = pipeline
        self.epoch = -1
        self.permutation = torch.empty(0)

    def __getitem__(self, number: int) -> Pictures | TrainerError:
        epoch, place = divmod(number, self.order.per_epoch)
        if self.epoch != epoch:
            self.permutation = torch.empty(0)  # frees the last one before the next is made
            self.epoch, self.permutation = epoch, self.order.epoch(epoch)
        try:
            return self.pipeline.prepare(self.images, self.order.part(self.permutation, place), number, self.order)
        except TrainerError as error:
            return error
