"""Views: functions of (seed, number), different for every image, and as the plan says."""

import numpy as np
import pytest
import torch

from ortho_kernels.trainer.data.pipelines import crops_of
from ortho_kernels.trainer.data.view_settings import LocalSettings, PairSettings, ViewSettings, plan_views
from ortho_kernels.trainer.data.views import Views, normalize
from ortho_kernels.trainer.data.whole_pictures import collate
from ortho_kernels.trainer.distributed.processes import Ranks
from ortho_kernels.trainer.randomness import generator_for

STILL = ViewSettings(min_area=1.0, max_ratio=1.0, flip=0.0, jitter=0.0, gray=0.0, blur=0.0)


def pixels(batch=6, channels=3, size=8):
    return torch.randint(
        0, 256, (batch, channels, size, size), dtype=torch.uint8, generator=generator_for("cpu", 0, "x")
    )


def two(settings, size, images, seed=0, **options):
    return Views(plan_views("two", settings, size), size, images, seed, **options)


@pytest.mark.parametrize("channels", [1, 3])
def test_views_have_the_size_asked_for_and_are_finite(channels):
    images = pixels(channels=channels)
    first, second = two(ViewSettings(solarize=0.5), 5, images)(images, 0)
    assert first.shape == second.shape == (6, channels, 5, 5)
    assert first.isfinite().all()
    assert not torch.equal(first, second)


def test_one_view_of_a_picture():
    images = pixels()
    settings = ViewSettings()
    [view] = Views(plan_views("one", settings, 5), 5, images, seed=0)(images, 3)
    assert view.shape == (6, 3, 5, 5)
    [again] = Views(plan_views("one", settings, 5), 5, images, seed=0)(images, 3)
    assert torch.equal(view, again)
    unlike = Views(plan_views("one", settings, 5), 5, images, seed=0)(images, 4)[0]
    assert not torch.equal(view, unlike)


def test_views_are_a_function_of_seed_and_number():
    images = pixels()
    views = two(ViewSettings(), 8, images)
    torch.rand(3)  # what else is drawn does not matter
    assert torch.equal(views(images, 7)[0], views(images, 7)[0])
    assert not torch.equal(views(images, 7)[0], views(images, 8)[0])
    assert not torch.equal(views(images, 7)[0], two(ViewSettings(), 8, images, seed=1)(images, 7)[0])


@pytest.mark.parametrize("kind", ["one size", "several sizes", "crops"])
def test_processes_draw_together_what_one_would(kind):
    images = pixels()
    if kind == "several sizes":
        images = [image[:, : 5 + i % 3] for i, image in enumerate(images)]

    def batch(part):
        if kind == "crops":
            return [part, part.flip(-1)]
        return collate(part) if kind == "several sizes" else part

    whole = two(ViewSettings(), 8, pixels())(batch(images), 3)
    parts = [
        two(ViewSettings(), 8, pixels(), ranks=Ranks(rank, 2))(batch(images[3 * rank :][:3]), 3) for rank in (0, 1)
    ]
    for view, first, second in zip(whole, *parts, strict=True):
        torch.testing.assert_close(torch.cat([first, second]), view)


def test_a_chunk_of_a_batch_gives_what_the_whole_batch_does(monkeypatch):
    images = pixels(channels=3)
    whole = two(ViewSettings(solarize=0.5), 8, images)(images, 3)
    monkeypatch.setattr("ortho_kernels.trainer.data.views.CHUNK", 1)
    torch.testing.assert_close(two(ViewSettings(solarize=0.5), 8, images)(images, 3), whole)


def test_an_asymmetric_pair_differs_in_blur_and_solarization():
    settings = ViewSettings(asymmetric=PairSettings(blur=[1.0, 0.1], solarize=[0.0, 0.2]))
    first, second = plan_views("asymmetric", settings, 8)
    assert (first.settings.blur, first.settings.solarize) == (1.0, 0.0)
    assert (second.settings.blur, second.settings.solarize) == (0.1, 0.2)
    assert first.settings.min_area == second.settings.min_area == settings.min_area


def test_multicrop_adds_small_views_of_small_parts():
    settings = ViewSettings(local=LocalSettings(count=3, min_area=0.05, max_area=0.1))
    plan = plan_views("multicrop", settings, 14)
    assert [view.size for view in plan] == [14, 14, 6, 6, 6]
    assert [view.settings.max_area for view in plan] == [1.0, 1.0, 0.1, 0.1, 0.1]
    images = pixels(size=14)
    assert [view.shape[-1] for view in Views(plan, 14, images, seed=0)(images, 0)] == [14, 14, 6, 6, 6]


def test_images_of_a_batch_are_cropped_differently():
    same = pixels(1).expand(4, -1, -1, -1)
    first, _ = two(ViewSettings(), 8, same)(same, 0)
    assert all(not torch.equal(first[0], first[i]) for i in range(1, 4))


def test_without_randomness_a_view_is_the_normalized_image():
    images = pixels()
    views = two(STILL, 8, images)
    torch.testing.assert_close(views(images, 0)[0], views.plain(images), atol=1e-5, rtol=1e-5)
    assert views.plain(images).mean().item() == pytest.approx(0, abs=1e-5)


def test_autocast_changes_no_view():
    images = pixels(size=16)
    views = two(ViewSettings(), 8, images)
    with torch.autocast("cpu", torch.bfloat16):
        inside = views(images, 0)
    assert torch.equal(inside[0], views(images, 0)[0])
    assert inside[0].dtype == torch.float32


def test_what_lies_beside_a_picture_in_a_padded_batch_is_not_seen():
    """Against each picture by itself, with the draws of its place."""
    pictures = [pixels(1, size=12)[0, :, :height, :width] for height, width in ((5, 9), (12, 7), (8, 8))]
    settings = ViewSettings(jitter=0.0, gray=0.0, blur=0.0)
    views = two(settings, 6, pixels())
    together = views(collate(pictures), 4)
    crops = crops_of(views.plan, 3, 0, 4)
    for place, picture in enumerate(pictures):
        for view in (0, 1):
            draws = crops[2 * place + view : 2 * place + view + 1]
            top, left, height, width = draws.boxes(np.array([picture.shape[1:]]))[0].tolist()
            part = picture[None, :, top : top + height, left : left + width].float()
            part = part.flip(-1) if draws.flips[0] else part
            resized = torch.nn.functional.interpolate(part, (6, 6), mode="bilinear", antialias=True)
            expected = normalize(resized / 255, views.mean, views.std)[0]
            torch.testing.assert_close(together[view][place], expected, atol=1e-4, rtol=1e-4)


def test_views_have_the_precision_of_their_statistics():
    """As trainer.precision=64-true asks for."""
    images = pixels()
    expected = two(ViewSettings(), 8, images)(images, 0)[0]
    views = two(ViewSettings(), 8, images).double()
    torch.set_default_dtype(torch.float64)
    try:
        ours = views(images, 0)[0]
    finally:
        torch.set_default_dtype(torch.float32)
    assert ours.dtype == torch.float64
    torch.testing.assert_close(ours.float(), expected, atol=1e-4, rtol=1e-4)
