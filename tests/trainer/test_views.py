"""Views: functions of (seed, number), different for every image, and right where the answer is known."""

import colorsys

import pytest
import torch
from torchvision.transforms.v2 import functional

from ortho_kernels.trainer.data.transforms import Draw, blur, color_jitter, gray, resized_crop, shift_hue, solarize
from ortho_kernels.trainer.data.views import LocalSettings, PairSettings, Views, ViewSettings, plan_views
from ortho_kernels.trainer.distributed.processes import Ranks
from ortho_kernels.trainer.randomness import generator_for, host_generator_for

STILL = ViewSettings(min_area=1.0, max_ratio=1.0, flip=0.0, jitter=0.0, gray=0.0, blur=0.0)


def pixels(batch=6, channels=3, size=8):
    return torch.randint(
        0, 256, (batch, channels, size, size), dtype=torch.uint8, generator=generator_for("cpu", 0, "x")
    )


def draw(batch=6):
    return Draw(batch, torch.device("cpu"), generator_for("cpu", 0, "draw"), host_generator_for(0, "draw"))


def two(settings, size, images, seed=0, **options):
    return Views(plan_views("two", settings, size), size, images, seed, **options)


@pytest.mark.parametrize("channels", [1, 3])
def test_views_have_the_size_asked_for_and_are_finite(channels):
    images = pixels(channels=channels)
    first, second = two(ViewSettings(solarize=0.5), 5, images)(images, 0)
    assert first.shape == second.shape == (6, channels, 5, 5)
    assert first.isfinite().all()
    assert not torch.equal(first, second)


def test_views_are_a_function_of_seed_and_number():
    images = pixels()
    views = two(ViewSettings(), 8, images)
    torch.rand(3)  # what else is drawn does not matter
    assert torch.equal(views(images, 7)[0], views(images, 7)[0])
    assert not torch.equal(views(images, 7)[0], views(images, 8)[0])
    assert not torch.equal(views(images, 7)[0], two(ViewSettings(), 8, images, seed=1)(images, 7)[0])


def test_processes_draw_together_what_one_would():
    images = pixels()
    whole = two(ViewSettings(), 8, images)(images, 3)
    parts = [two(ViewSettings(), 8, images, ranks=Ranks(rank, 2))(images[3 * rank :][:3], 3) for rank in (0, 1)]
    for view, first, second in zip(whole, *parts, strict=True):
        torch.testing.assert_close(torch.cat([first, second]), view)


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
    torch.testing.assert_close(views(images, 0)[0], views.plain(images), atol=1e-4, rtol=1e-4)
    assert views.plain(images).mean().item() == pytest.approx(0, abs=1e-5)


def test_a_certain_flip_mirrors():
    images = pixels().float()
    torch.testing.assert_close(
        resized_crop(images, 8, (1.0, 1.0), 1.0, 1.0, draw()), images.flip(-1), atol=1e-2, rtol=1e-3
    )


def test_a_crop_of_a_ramp_is_a_ramp():
    ramp = torch.arange(16.0).expand(6, 1, 16, 16)
    crop = resized_crop(ramp, 8, (0.2, 1.0), 4 / 3, 0.0, draw())
    steps = crop.diff(dim=-1)
    assert (steps[..., 1:-1] > 0).all()
    torch.testing.assert_close(steps[..., 2], steps[..., 4], atol=1e-4, rtol=1e-4)


def test_a_certain_gray_has_equal_channels():
    toned = gray(pixels().float() / 255, 1.0, draw())
    torch.testing.assert_close(toned.expand(-1, 3, -1, -1)[:, 0], toned.expand(-1, 3, -1, -1)[:, 2])


@pytest.mark.parametrize("turns", [-0.5, -0.1, 0.0, 0.07, 0.4])
def test_hue_is_shifted_as_the_colorsys_module_shifts_it(turns):
    images = pixels(batch=2, size=4).double() / 255
    images[0, :, 0, 0] = 0.3  # gray has no hue
    shifted = shift_hue(images, torch.full((2, 1, 1, 1), turns, dtype=torch.float64))
    for pixel, ours in zip(
        images.permute(0, 2, 3, 1).reshape(-1, 3), shifted.permute(0, 2, 3, 1).reshape(-1, 3), strict=True
    ):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel.tolist())
        assert ours.tolist() == pytest.approx(colorsys.hsv_to_rgb((hue + turns) % 1.0, saturation, value), abs=1e-9)


@pytest.mark.parametrize(
    ("option", "adjust"),
    [
        ("brightness", functional.adjust_brightness),
        ("contrast", functional.adjust_contrast),
        ("saturation", functional.adjust_saturation),
    ],
)
def test_jitter_does_what_torchvision_does(option, adjust):
    images = pixels().float() / 255
    strengths = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, option: 0.4}
    toned = color_jitter(images, probability=1.0, draw=draw(), **strengths)
    repeat = draw()
    factors = {name: repeat.uniform(1 - s, 1 + s) for name, s in strengths.items() if name != "hue"}
    for image, ours, factor in zip(images, toned, factors[option].flatten().tolist(), strict=True):
        torch.testing.assert_close(ours, adjust(image, factor), atol=2e-3, rtol=0)  # torchvision rounds luma's weights


def test_blur_keeps_the_mean_of_a_constant_and_lowers_variance():
    assert torch.allclose(blur(torch.full((6, 1, 8, 8), 0.3), 1.0, 1.0, draw()), torch.tensor(0.3))
    images = pixels().float()
    assert blur(images, 1.0, 2.0, draw()).std() < images.std()
    assert torch.equal(blur(images, 0.0, 2.0, draw()), images)


def test_blur_is_the_gaussian_of_its_width():
    spot = torch.zeros(1, 1, 21, 21)
    spot[..., 10, 10] = 1.0
    sigma = draw(1).uniform(0.1, 2.0).item()
    weights = torch.exp(-0.5 * (torch.arange(-10.0, 11.0) / sigma) ** 2)
    weights /= weights.sum()
    torch.testing.assert_close(blur(spot, 1.0, 2.0, draw(1))[0, 0], torch.outer(weights, weights), atol=5e-3, rtol=0)


def test_solarization_inverts_what_is_bright():
    images = torch.tensor([0.2, 0.5, 0.9]).view(1, 1, 1, 3)
    torch.testing.assert_close(solarize(images, 1.0, draw(1)), torch.tensor([0.2, 0.5, 0.1]).view(1, 1, 1, 3))
    assert torch.equal(solarize(images, 0.0, draw(1)), images)
