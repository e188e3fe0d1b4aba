"""Views: functions of (seed, number), different for every image, and right where the answer is known."""

import pytest
import torch

from ortho_kernels.trainer.randomness import generator_for
from ortho_kernels.trainer.views import Views, ViewSettings, _Draw, blur, jitter, resized_crop

STILL = ViewSettings(min_area=1.0, max_ratio=1.0, flip=0.0, jitter=0.0, grey=0.0, blur=0.0)


def pixels(batch=6, channels=3, size=8):
    return torch.randint(
        0, 256, (batch, channels, size, size), dtype=torch.uint8, generator=generator_for("cpu", 0, "x")
    )


def draw(batch=6):
    return _Draw(batch, torch.device("cpu"), generator_for("cpu", 0, "draw"))


@pytest.mark.parametrize("channels", [1, 3])
def test_views_have_the_size_asked_for_and_are_finite(channels):
    images = pixels(channels=channels)
    first, second = Views(ViewSettings(), 5, images, seed=0)(images, 0)
    assert first.shape == second.shape == (6, channels, 5, 5)
    assert first.isfinite().all()
    assert not torch.equal(first, second)


def test_views_are_a_function_of_seed_and_number():
    images = pixels()
    views = Views(ViewSettings(), 8, images, seed=0)
    torch.rand(3)  # what else is drawn does not matter
    assert torch.equal(views(images, 7)[0], views(images, 7)[0])
    assert not torch.equal(views(images, 7)[0], views(images, 8)[0])
    assert not torch.equal(views(images, 7)[0], Views(ViewSettings(), 8, images, seed=1)(images, 7)[0])


def test_images_of_a_batch_are_cropped_differently():
    same = pixels(1).expand(4, -1, -1, -1)
    first, _ = Views(ViewSettings(), 8, same, seed=0)(same, 0)
    assert all(not torch.equal(first[0], first[i]) for i in range(1, 4))


def test_without_randomness_a_view_is_the_normalized_image():
    images = pixels()
    views = Views(STILL, 8, images, seed=0)
    torch.testing.assert_close(views(images, 0)[0], views.plain(images), atol=1e-4, rtol=1e-4)
    assert views.plain(images).mean().item() == pytest.approx(0, abs=1e-5)


def test_a_certain_flip_mirrors():
    images = pixels().float()
    settings = ViewSettings(min_area=1.0, max_ratio=1.0, flip=1.0)
    torch.testing.assert_close(resized_crop(images, 8, settings, draw()), images.flip(-1), atol=1e-2, rtol=1e-3)


def test_a_crop_of_a_ramp_is_a_ramp():
    ramp = torch.arange(16.0).expand(6, 1, 16, 16)
    crop = resized_crop(ramp, 8, ViewSettings(min_area=0.2, flip=0.0), draw())
    steps = crop.diff(dim=-1)
    assert (steps[..., 1:-1] > 0).all()
    torch.testing.assert_close(steps[..., 2], steps[..., 4], atol=1e-4, rtol=1e-4)


def test_a_certain_grey_has_equal_channels():
    grey = jitter(pixels().float() / 255, ViewSettings(grey=1.0), draw())
    torch.testing.assert_close(grey[:, 0], grey[:, 2])


def test_blur_keeps_the_mean_of_a_constant_and_lowers_variance():
    assert torch.allclose(blur(torch.full((6, 1, 8, 8), 0.3), ViewSettings(blur=1.0), draw()), torch.tensor(0.3))
    images = pixels().float()
    assert blur(images, ViewSettings(blur=1.0), draw()).std() < images.std()
    assert torch.equal(blur(images, ViewSettings(blur=0.0), draw()), images)
