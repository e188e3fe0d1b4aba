"""Colors and blur of views, where the answer is known: from torchvision, from colorsys, or by hand."""

import colorsys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from ortho_kernels.trainer.data.colors import blur, color, color_jitter, draw_colors, shift_hue
from ortho_kernels.trainer.data.view_settings import ViewSettings
from ortho_kernels.trainer.randomness import generator_for

NOTHING = ViewSettings(jitter=0.0, gray=0.0, blur=0.0)


def images(batch=6, channels=3, size=8):
    return torch.rand(batch, channels, size, size, generator=generator_for("cpu", 0, "x"))


def drawn(settings, count=6):
    return draw_colors(settings, count, np.random.default_rng(0))


def amounts(value, count=6):
    return torch.full((count, 1, 1, 1), value)


@pytest.mark.parametrize("turns", [-0.5, -0.1, 0.0, 0.07, 0.4])
def test_hue_is_shifted_as_the_colorsys_module_shifts_it(turns):
    pixels = images(2, size=4).double()
    pixels[0, :, 0, 0] = 0.3  # gray has no hue
    pixels[0, :, 0, 1] = torch.tensor([0.2, 0.2, 0.7])  # two channels alike
    pixels[0, :, 0, 2] = torch.tensor([0.7, 0.2, 0.7])
    shifted = shift_hue(pixels, torch.full((2, 1, 1, 1), turns, dtype=torch.float64))
    for pixel, ours in zip(
        pixels.permute(0, 2, 3, 1).reshape(-1, 3), shifted.permute(0, 2, 3, 1).reshape(-1, 3), strict=True
    ):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel.tolist())
        assert ours.tolist() == pytest.approx(colorsys.hsv_to_rgb((hue + turns) % 1.0, saturation, value), abs=1e-9)


@pytest.mark.parametrize("factor", [0.4, 1.0, 1.7])
@pytest.mark.parametrize(
    ("place", "adjust"),
    list(enumerate([functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation])),
)
def test_jitter_does_what_torchvision_does(place, adjust, factor):
    factors = [amounts(1.0), amounts(1.0), amounts(1.0), amounts(0.0)]
    factors[place] = amounts(factor)
    toned = color_jitter(images(), *factors)
    torch.testing.assert_close(toned, adjust(images(), factor), atol=2e-3, rtol=0)  # torchvision rounds luma's weights


def test_jitter_is_the_four_adjustments_one_after_the_other():
    toned = color_jitter(images(), amounts(1.3), amounts(0.6), amounts(1.8), amounts(-0.2))
    expected = functional.adjust_contrast(functional.adjust_brightness(images(), 1.3), 0.6)
    expected = functional.adjust_hue(functional.adjust_saturation(expected, 1.8), -0.2)
    torch.testing.assert_close(toned, expected, atol=5e-3, rtol=0)


def test_gray_images_have_brightness_and_contrast():
    one_channel = images(channels=1)
    toned = color_jitter(one_channel.clone(), amounts(0.5), amounts(1.0), amounts(7.0), amounts(0.3))
    torch.testing.assert_close(toned, one_channel * 0.5)
    assert color(images(channels=1), drawn(ViewSettings(gray=1.0, solarize=0.5))).shape == (6, 1, 8, 8)


def test_each_image_gets_its_own_draws_and_chance_chooses():
    draws = drawn(ViewSettings(jitter=0.5, gray=0.3, blur=0.5, solarize=0.5, blur_sigma=1.0), 40)
    ours = color(images(40), draws)
    for row, image in enumerate(images(40)):
        image = image[None]
        if draws.jittered[row]:
            image = color_jitter(image, *torch.from_numpy(draws.adjustments[row]).view(4, 1, 1, 1, 1))
        if draws.grayed[row]:
            image = functional.rgb_to_grayscale(image, 3)
        if draws.blurred[row]:
            image = blur(image, draws.sigma[row : row + 1])
        if draws.solarized[row]:
            image = torch.where(image >= 0.5, 1 - image, image)
        torch.testing.assert_close(ours[row : row + 1], image, atol=1e-3, rtol=0)
    assert 0 < draws.jittered.sum() < 40


def test_draws_lie_where_their_settings_say():
    """Brightness, contrast, saturation, hue, and the blur's width."""
    settings = ViewSettings(jitter=0.8, brightness=0.8, contrast=0.6, saturation=0.4, hue=0.2, blur_sigma=3.0)
    draws = drawn(settings, 20_000)
    drawn_values = [*draws.adjustments.T, draws.sigma]
    ranges = [(0.2, 1.8), (0.4, 1.6), (0.6, 1.4), (-0.2, 0.2), (0.1, 3.0)]
    for values, (low, high) in zip(drawn_values, ranges, strict=True):
        assert low - 1e-6 <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high + 1e-6
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.03)
    assert draws.jittered.mean() == pytest.approx(0.8, abs=0.02)


def test_without_chance_nothing_changes():
    assert torch.equal(color(images(), drawn(NOTHING)), images())


def test_blur_keeps_a_constant_and_lowers_variance():
    assert torch.allclose(blur(torch.full((6, 1, 8, 8), 0.3), np.full(6, 1.0)), torch.tensor(0.3))
    assert blur(images(), np.full(6, 2.0)).std() < images().std()


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_blur_is_torchvisions_within_an_image(sigma):
    image = images(1, size=40)
    expected = functional.gaussian_blur(image, [23, 23], [sigma, sigma])
    within = slice(12, -12)  # at the border torchvision reflects, and we repeat
    torch.testing.assert_close(
        blur(image, np.array([sigma]))[..., within, within], expected[..., within, within], atol=2e-3, rtol=0
    )


def test_a_blur_does_not_depend_on_the_images_beside_it():
    sigmas = np.array([0.3, 2.0])
    together = blur(images(2, size=30), sigmas)
    torch.testing.assert_close(blur(images(2, size=30)[:1], sigmas[:1]), together[:1], atol=1e-6, rtol=0)


def test_solarization_inverts_what_is_bright():
    image = torch.tensor([0.2, 0.5, 0.9]).view(1, 1, 1, 3)
    solarized = color(image.clone(), drawn(replace(NOTHING, solarize=1.0), 1))
    torch.testing.assert_close(solarized, torch.tensor([0.2, 0.5, 0.1]).view(1, 1, 1, 3))
