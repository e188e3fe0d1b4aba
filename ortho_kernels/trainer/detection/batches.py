"""The pictures of each step, scaled and mirrored, with their boxes: a function of the seed and the step."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.order import Order
from ..data.recolored import recolor
from .augmentation import augment
from .settings import DetectorSettings
from .voc import VOC, Boxes

Batch = tuple[list[Tensor], list[dict[str, Tensor]]]  # pictures, and what is on them


@dataclass(frozen=True)
class Batches:
    voc: VOC
    settings: DetectorSettings
    channels: int  # of the encoder's pictures: 1 is gray, 3 is color
    seed: int
    device: torch.device

    def __getitem__(self, step: int) -> Batch:
        order = Order(len(self.voc), self.settings.batch_size, self.seed)
        epoch, place = divmod(step, order.per_epoch)
        chosen = order.part(order.epoch(epoch), place).tolist()
        drawn = [self._draw(index, step * order.batch_size + number) for number, index in enumerate(chosen)]
        targets = [{"boxes": boxes.boxes, "labels": boxes.labels} for _, boxes in drawn]
        return (
            [pixels.to(self.device) for pixels, _ in drawn],
            [{key: value.to(self.device) for key, value in target.items()} for target in targets],
        )

    def _draw(self, index: int, place: int) -> tuple[Tensor, Boxes]:
        pixels, boxes = self.voc[index]
        pixels = recolor(pixels[None], self.channels)[0]
        return augment(pixels, boxes, self.seed, place, self.settings.training_sides, self.settings.longest_side)
