"""What is drawn for a detector's training pictures: sizes, mirrors, and boxes that stay on their objects."""

import pytest
import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from ortho_kernels.trainer.detection.augmentation import augment, mirror, resize
from ortho_kernels.trainer.detection.voc import Boxes


def boxes_of(*corners):
    count = len(corners)
    return Boxes(torch.tensor(corners).float(), torch.ones(count).long(), torch.zeros(count).bool(), "made up")


def noise(height, width):
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_it_is_a_function_of_seed_and_place():
    pixels, boxes = noise(30, 40), boxes_of([1, 2, 10, 20])
    torch.manual_seed(1)
    first = [augment(pixels, boxes, 3, place, [20, 40], 100) for place in range(8)]
    torch.manual_seed(2)
    again = [augment(pixels, boxes, 3, place, [20, 40], 100) for place in reversed(range(8))][::-1]
    for (a, its), (b, others) in zip(first, again, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(its.boxes, others.boxes)
    other = [augment(pixels, boxes, 4, place, [20, 40], 100) for place in range(8)]
    assert any(a.shape != b.shape or not torch.equal(a, b) for (a, _), (b, _) in zip(first, other, strict=True))


def test_sides_and_mirrors_are_drawn_evenly():
    pixels, boxes = torch.zeros(3, 3, 4, dtype=torch.uint8), boxes_of([0, 0, 1, 3])
    drawn = [augment(pixels, boxes, 0, place, [3, 6, 9], 100) for place in range(600)]
    sides = torch.tensor([picture.shape[1] for picture, _ in drawn])
    mirrored = torch.tensor([bool(found.boxes[0, 0] > 0) for _, found in drawn])
    for side in (3, 6, 9):
        here = sides == side
        assert 160 < here.sum() < 240  # 200 of 600, with a deviation of 12
        assert 0.35 < mirrored[here].float().mean() < 0.65


@pytest.mark.parametrize(("height", "width"), [(30, 40), (41, 29), (375, 500), (50, 300), (333, 500)])
@pytest.mark.parametrize("side", [64, 97, 512])
def test_it_scales_as_torchvision_does(height, width, side):
    transform = GeneralizedRCNNTransform(side, 700, [0.0] * 3, [1.0] * 3, size_divisible=1).eval()
    pixels, boxes = noise(height, width), boxes_of([0, 0, width, height], [3, 4, 20, 25])
    target = {"boxes": boxes.boxes, "labels": boxes.labels}
    images, [expected] = transform([pixels.float() / 255], [target])
    scaled, found = resize(pixels, boxes, side, 700)
    assert max(scaled.shape) <= 700
    torch.testing.assert_close(scaled[None], images.tensors, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.boxes, expected["boxes"])


def test_a_box_stays_on_its_object():
    """A white rectangle on black: after scaling and mirroring the box still holds it, and nothing else is white."""
    pixels = torch.zeros(3, 60, 80, dtype=torch.uint8)
    pixels[:, 10:30, 50:70] = 255
    mirrors = set()
    for place in range(10):
        scaled, found = augment(pixels, boxes_of([50, 10, 70, 30]), 0, place, [120, 180], 1000)
        x1, y1, x2, y2 = found.boxes[0].round().int().tolist()
        assert scaled[:, y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].min() > 0.8
        scaled[:, y1 - 1 : y2 + 1, x1 - 1 : x2 + 1] = 0
        assert scaled.max() < 0.3
        mirrors.add(x1 < scaled.shape[2] / 2)
    assert mirrors == {True, False}


def test_two_mirrors_are_none():
    pixels, boxes = resize(noise(30, 40), boxes_of([1, 2, 10, 20]), 30, 100)
    twice, again = mirror(*mirror(pixels, boxes))
    assert torch.equal(twice, pixels)
    assert torch.equal(again.boxes, boxes.boxes)
    assert mirror(pixels, boxes)[1].boxes.tolist() == [[30, 2, 39, 20]]
