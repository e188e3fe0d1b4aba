"""What becomes of the pictures of a batch before they go to the device.

    DevicePipeline   whole pictures; `Views` cuts their crops on the device
    WorkersPipeline  the crops of all views, cut from pictures that are decoded once
    OwnPipeline      views, from transforms of the user's own

Each draws from (seed, number of the batch, place in the batch) alone. So the number of workers and processes does not
matter, and a resume is exact. A broken picture is replaced by `Order.stand_ins`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import get_worker_info

from ..errors import TrainerError
from ..randomness import host_generator_for
from .crops import CropDraws, cut, draw_crops, reduced, reduction
from .decoding import load_upright, to_tensor, upright_size
from .images import Images, Result
from .order import STAND_INS, Order
from .own_transforms import OwnTransforms, keep_generators
from .view_settings import View
from .whole_pictures import Padded, collate

REDUCIBLE = ("JPEG", "MPO")  # formats that can be decoded at a fraction of their size

Pictures = Tensor | Padded | list[Tensor]  # whole pictures, or a tensor for each view: uint8 crops, or float views


class Pipeline(ABC):
    """Prepares batches, in worker processes where that pays."""

    needs_workers: bool  # even where pictures are in memory

    @abstractmethod
    def prepare(self, images: Images, indices: Tensor, number: int, order: Order) -> Pictures:
        """What goes to the device of this process's pictures of batch `number`."""


class DevicePipeline(Pipeline):
    """Whole pictures. Those that are not in memory have `data.decode_size` as their shorter side."""

    needs_workers = False

    def prepare(self, images: Images, indices: Tensor, number: int, order: Order) -> Pictures:
        pictures, readable = images.whole(indices)
        if not readable.all():
            found = iter(pictures)
            pictures = [
                next(found) if is_readable else self._stand_in(images, order, number, place)
                for place, is_readable in enumerate(readable.tolist())
            ]
        return pictures if isinstance(pictures, Tensor) else collate(pictures)

    def _stand_in(self, images: Images, order: Order, number: int, place: int) -> Tensor:
        for index in order.stand_ins(number, order.first + place):
            pictures, _ = images.whole(index)
            if len(pictures):
                return pictures[0]
        raise none_readable()


class WorkersPipeline(Pipeline):
    """uint8 crops, one tensor for each view."""

    needs_workers = False

    def __init__(self, plan: Sequence[View], channels: int, seed: int) -> None:
        self.plan = plan
        self.channels = channels
        self.seed = seed

    def prepare(self, images: Images, indices: Tensor, number: int, order: Order) -> Pictures:
        views, draws = len(self.plan), crops_of(self.plan, order.batch_size, self.seed, number)
        crops = [room(len(indices), self.channels, view.size, view.size) for view in self.plan]
        for row, index in enumerate(indices.tolist()):
            place = order.first + row
            of_picture = draws[place * views : (place + 1) * views]
            work = partial(cut_crops, draws=of_picture, targets=[view[row] for view in crops])
            attempt(images, index, work, order, number, place)
        return crops


class OwnPipeline(Pipeline):
    """Float views that transforms of the user's own make of whole pictures."""

    needs_workers = True

    def __init__(self, transforms: OwnTransforms, channels: int) -> None:
        self.transforms = transforms
        self.channels = channels

    def try_out(self, images: Images) -> None:
        """Raises TrainerError now, and not in a worker later, for views that can't be used."""
        picture = images.attempt(0, self._whole)
        if picture is not None:
            with keep_generators():
                self.transforms(picture, place=0)

    def prepare(self, images: Images, indices: Tensor, number: int, order: Order) -> Pictures:
        with keep_generators():
            samples = []
            for place, index in enumerate(indices.tolist(), start=order.first):
                picture = attempt(images, index, self._whole, order, number, place)
                samples.append(self.transforms(picture, number * order.batch_size + place))
        return [torch.stack(list(views)) for views in zip(*samples, strict=True)]

    def _whole(self, image: Image.Image) -> Image.Image:
        return load_upright(image, self.channels)


def build_pipeline(choice: str | None, plan: Sequence[View], images: Images, seed: int) -> Pipeline:
    """That of a run. `choice` is data.pipeline; by default it is the pictures' own."""
    path = plan[0].settings.transform
    if path is not None and choice == "device":
        raise TrainerError(
            f"data.pipeline=device: data.views.transform={path} makes whole views in workers. Leave one of both out."
        )
    if path is not None:
        transforms = OwnTransforms(path, [view.size for view in plan], images.channels, seed)
        pipeline = OwnPipeline(transforms, images.channels)
        pipeline.try_out(images)
        return pipeline
    if (choice or images.pipeline) == "device":
        return DevicePipeline()
    return WorkersPipeline(plan, images.channels, seed)


def room(*shape: int) -> Tensor:
    """uint8, not filled. A worker process takes it from the memory that it shares: it would be copied there later."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    shared: Any = torch.UntypedStorage._new_shared(math.prod(shape))
    return torch.empty(0, dtype=torch.uint8).set_(shared).view(shape)


def crops_of(plan: Sequence[View], count: int, seed: int, number: int) -> CropDraws:
    """The crops of batch `number`, of the pictures of all processes."""
    return draw_crops(plan, count, host_generator_for(seed, "crops", number))


def cut_crops(image: Image.Image, draws: CropDraws, targets: Sequence[Tensor]) -> Sequence[Tensor]:
    """Decodes the picture once, as small as its crops allow, and fills the uint8 `(channels, size, size)` of each."""
    channels, sizes = len(targets[0]), [target.shape[-1] for target in targets]
    if image.format in REDUCIBLE:
        whole = upright_size(image)
        boxes = draws.boxes(np.array([whole] * len(targets)))
        allowed = reduction(boxes, sizes)
        scale = next((scale for scale in (8, 4, 2) if scale <= allowed), 1)
        smaller = (image.width // scale, image.height // scale) if scale > 1 else None
        picture = to_tensor(load_upright(image, channels, reduced_to=smaller))
        if scale > 1:
            boxes = reduced(boxes, whole, picture.shape[1:])
    else:
        picture = to_tensor(load_upright(image, channels))
        boxes = draws.boxes(np.array([picture.shape[1:]] * len(targets)))
    for box, flip, target in zip(boxes.tolist(), draws.flips.tolist(), targets, strict=True):
        cut(picture, box, flip, target)
    return targets


def attempt(
    images: Images, index: int, work: Callable[[Image.Image], Result], order: Order, number: int, place: int
) -> Result:
    """What `work` makes of a picture, or of the first of its stand-ins that can be decoded."""
    result = images.attempt(index, work)
    if result is not None:
        return result
    for stand_in in order.stand_ins(number, place):
        result = images.attempt(int(stand_in), work)
        if result is not None:
            return result
    raise none_readable()


def none_readable() -> TrainerError:
    return TrainerError(f"None of {STAND_INS:,} pictures drawn at random can be decoded: are they still there?")
