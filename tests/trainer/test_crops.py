"""Crops: the boxes of torchvision's RandomResizedCrop, and the resampling of its v2."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from ortho_kernels.trainer.data.crops import CropDraws, cut, cut_batch, draw_crops, reduced, reduction
from ortho_kernels.trainer.data.pipelines import cut_crops
from ortho_kernels.trainer.data.view_settings import LocalSettings, View, ViewSettings, plan_views

DRAWS = 20_000
CASES = [  # height, width, areas, largest ratio
    (375, 500, (0.08, 1.0), 4 / 3),
    (500, 375, (0.2, 1.0), 4 / 3),
    (100, 100, (0.05, 0.14), 4 / 3),
    (120, 640, (0.08, 1.0), 4 / 3),  # so wide that many tries fit nothing
    (30, 300, (0.9, 1.0), 4 / 3),  # always the middle
    (32, 32, (0.08, 1.0), 2.0),
    (8, 8, (0.5, 1.0), 4 / 3),
]


def plan(areas, max_ratio, size=8, **options):
    return [View(size, ViewSettings(min_area=areas[0], max_area=areas[1], max_ratio=max_ratio, **options))]


def boxes(height, width, areas, max_ratio, count=DRAWS):
    draws = draw_crops(plan(areas, max_ratio), count, np.random.default_rng(0))
    return draws.boxes(np.array([[height, width]] * count))


@pytest.mark.parametrize(("height", "width", "areas", "max_ratio"), CASES)
def test_boxes_are_distributed_as_torchvisions(height, width, areas, max_ratio):
    ours = torch.from_numpy(boxes(height, width, areas, max_ratio)).double()
    torch.manual_seed(0)
    crop = v2.RandomResizedCrop(8, scale=areas, ratio=(1 / max_ratio, max_ratio))
    picture = torch.empty(1, height, width)
    drawn = [crop.make_params([picture]) for _ in range(DRAWS // 4)]
    theirs = torch.tensor([[d["top"], d["left"], d["height"], d["width"]] for d in drawn]).double()
    for mine, its in zip(_figures(ours), _figures(theirs), strict=True):
        error = (mine.var() / len(mine) + its.var() / len(its)).sqrt() + 1e-9
        assert abs(mine.mean() - its.mean()) < 4.5 * error
        assert mine.std().item() == pytest.approx(its.std().item(), rel=0.05, abs=1e-9)
        bins = 16
        low, high = its.min().item(), its.max().item() + 1e-9
        mine, its = (torch.histc(each, bins, low, high) / len(each) for each in (mine, its))
        assert (mine - its).abs().max() < 0.03


def _figures(found):
    """Sides, places, share of the picture and ratio."""
    top, left, height, width = found.T
    return [top, left, height, width, height * width, width / height]


@pytest.mark.parametrize(("height", "width", "areas", "max_ratio"), CASES)
def test_boxes_are_torchvisions_for_the_same_draws(height, width, areas, max_ratio):
    """Its loop written out, on our numbers."""
    draws = draw_crops(plan(areas, max_ratio), 200, np.random.default_rng(1))
    found = draws.boxes(np.array([[height, width]] * 200)).tolist()
    for row, box in enumerate(found):
        for area, ratio in zip(draws.areas[row], draws.ratios[row], strict=True):
            assert areas[0] <= area <= areas[1]
            assert 1 / max_ratio - 1e-9 <= ratio <= max_ratio + 1e-9
            w = round((area * height * width * ratio) ** 0.5)
            h = round((area * height * width / ratio) ** 0.5)
            if 0 < w <= width and 0 < h <= height:
                place = draws.places[row]
                expected = [int(place[0] * (height - h + 1)), int(place[1] * (width - w + 1)), h, w]
                break
        else:
            w, h = width, height
            if width / height < 1 / max_ratio:
                h = round(width / (1 / max_ratio))
            elif width / height > max_ratio:
                w = round(height * max_ratio)
            expected = [(height - h) // 2, (width - w) // 2, h, w]
        assert box == expected


def test_each_picture_has_its_own_size_and_each_view_its_own_areas():
    views = plan_views("multicrop", ViewSettings(min_area=0.5, local=LocalSettings(count=2)), 14)
    draws = draw_crops(views, 500, np.random.default_rng(0))
    sizes = np.random.default_rng(1).integers(20, 90, (500, 2))
    found = draws.boxes(sizes.repeat(4, axis=0)).reshape(500, 4, 4)
    shares = found[..., 2:].prod(-1) / sizes.prod(-1)[:, None]
    assert (found[..., :2] >= 0).all()
    assert (found[..., :2] + found[..., 2:] <= sizes[:, None]).all()
    assert shares[:, 2:].max() < 0.2
    assert shares[:, 2:].min() < 0.06
    assert np.median(shares[:, :2]) > 0.4
    assert 0.4 < draws.flips.mean() < 0.6


def picture(height, width, channels=3):
    generator = torch.Generator().manual_seed(height)
    coarse = torch.rand(1, channels, 5, 7, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)[0]
    return (smooth * 200 + torch.rand(channels, height, width, generator=generator) * 55).to(torch.uint8)


BOXES = [(3, 5, 30, 41), (0, 0, 60, 80), (11, 2, 9, 7), (59, 79, 1, 1), (20, 3, 16, 64)]


@pytest.mark.parametrize("size", [16, 24])
@pytest.mark.parametrize("flip", [False, True])
def test_both_ways_resample_as_torchvision_does(size, flip):
    whole = picture(60, 80)
    batch = torch.zeros(len(BOXES), 3, 64, 90, dtype=torch.uint8)
    batch[:, :, :60, :80] = whole
    batch[:, :, 60:] = 255  # beside the picture
    exact = cut_batch(batch, np.array(BOXES), np.full(len(BOXES), flip), size)
    for box, ours in zip(BOXES, exact, strict=True):
        target = torch.empty(3, size, size, dtype=torch.uint8)
        cut(whole, box, flip, target)
        flipped = functional.hflip if flip else (lambda image: image)
        top, left, height, width = box
        arguments = top, left, height, width, [size, size]
        in_bytes = functional.resized_crop(whole, *arguments, antialias=True)
        in_floats = functional.resized_crop(whole.float(), *arguments, antialias=True)
        assert torch.equal(target, flipped(in_bytes))
        torch.testing.assert_close(ours, flipped(in_floats), atol=1e-3, rtol=0)


def one(draw_area, flip=False, views=1):
    """Draws of crops with this share of the picture, at its start."""
    return CropDraws(
        np.full((views, 10), draw_area), np.ones((views, 10)), np.full(views, 4 / 3), np.zeros((views, 2)),
        np.full(views, flip),
    )  # fmt: skip


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("kind", ["png", "tiff", "jpeg"])
def test_workers_cut_from_the_whole_upright_picture(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    array = np.ascontiguousarray(picture(60, 80).permute(1, 2, 0).numpy())
    Image.fromarray(array).save(tmp_path / f"a.{kind}", exif=exif)
    targets = [torch.empty(3, 16, 16, dtype=torch.uint8)]
    with Image.open(tmp_path / f"a.{kind}") as image:
        cut_crops(image, one(0.25), targets)
    with Image.open(tmp_path / f"a.{kind}") as image:
        turned = {1: 0, 3: 180, 6: 270, 8: 90}[orientation]
        image.load()
        if kind != "tiff":  # which PIL turns itself
            image = image.rotate(turned, expand=True)
        whole = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert whole.shape[1:] == ((60, 80) if orientation in (1, 3) else (80, 60))
    expected = functional.resized_crop(whole, 0, 0, 35, 35, [16, 16], antialias=True)
    if kind == "jpeg":  # decoded at a half of its size, where boxes are whole pixels too
        assert (targets[0].float() - expected.float()).abs().mean() < 6
    else:
        assert torch.equal(targets[0], expected)


def test_a_jpeg_is_decoded_as_small_as_its_smallest_crop_allows(tmp_path, monkeypatch):
    Image.fromarray(np.ascontiguousarray(picture(400, 520).permute(1, 2, 0).numpy())).save(tmp_path / "a.jpg")
    drafts = []
    from PIL import JpegImagePlugin

    draft = JpegImagePlugin.JpegImageFile.draft
    monkeypatch.setattr(
        JpegImagePlugin.JpegImageFile,
        "draft",
        lambda self, mode, size: (draft(self, mode, size), drafts.append(self.size))[0],
    )
    for share, size, expected in (
        (1.0, 40, (65, 50)),
        (0.25, 40, (130, 100)),
        (0.25, 100, (260, 200)),
        (0.05, 100, None),
    ):
        drafts.clear()
        with Image.open(tmp_path / "a.jpg") as image:
            cut_crops(image, one(share), [torch.empty(3, size, size, dtype=torch.uint8)])
        assert drafts == ([expected] if expected else [])


def test_boxes_of_a_smaller_picture_cover_the_same_part():
    found = np.array([[0, 0, 400, 520], [101, 33, 64, 40], [399, 519, 1, 1]])
    assert reduced(found, (400, 520), (50, 65)).tolist() == [[0, 0, 50, 65], [13, 4, 8, 5], [50, 65, 1, 1]]
    assert reduction(found[:2], [10, 10]) == 4.0
