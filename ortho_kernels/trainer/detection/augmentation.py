"""What is drawn for a picture that a detector trains on: its size, and whether it is mirrored.

As in detectron2: the shorter side is drawn from a list, the longer one stays below a bound, and half of the pictures are
mirrored. The network must not scale such a picture again; test pictures are its to scale.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from ..randomness import host_generator_for
from .voc import Boxes


def augment(
    pixels: Tensor,
    boxes: Boxes,
    seed: int,
    place: int,
    short_sides: Sequence[int],
    longest_side: int,
) -> tuple[Tensor, Boxes]:
    """A picture, uint8 `(3, height, width)`, as float32 in [0, 1] of another size, with its boxes.

    What is drawn is a function of `seed` and `place`, the number of the picture in the whole training.
    """
    random = host_generator_for(seed, "detection augmentation", place)
    short_side, mirrored = int(random.choice(short_sides)), random.random() < 0.5
    pixels, boxes = resize(pixels, boxes, short_side, longest_side)
    return mirror(pixels, boxes) if mirrored else (pixels, boxes)


def resize(pixels: Tensor, boxes: Boxes, short_side: int, longest_side: int) -> tuple[Tensor, Boxes]:
    """The picture as float32 in [0, 1], so large as both sides allow; scaled as torchvision's detectors scale theirs."""
    height, width = pixels.shape[1:]
    scale = min(short_side / min(height, width), longest_side / max(height, width))
    size = (int(height * scale), int(width * scale))
    scaled = functional.interpolate(pixels[None].float().div(255), size=size, mode="bilinear", align_corners=False)[0]
    factors = torch.tensor([size[1] / width, size[0] / height])
    return scaled, replace(boxes, boxes=boxes.boxes * factors.repeat(2))


def mirror(pixels: Tensor, boxes: Boxes) -> tuple[Tensor, Boxes]:
    """Left becomes right."""
    width = pixels.shape[2]
    x1, y1, x2, y2 = boxes.boxes.unbind(1)
    return pixels.flip(2), replace(boxes, boxes=torch.stack([width - x2, y1, width - x1, y2], 1))
