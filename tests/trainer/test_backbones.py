"""Backbones: shapes, names and what the penalty finds in them."""

import pytest
import torch
import torchvision

from ortho_kernels import OrthogonalityPenalty
from ortho_kernels.trainer.backbones import ResNet18, ResNet18Settings, ViTTinySettings, build_backbone
from ortho_kernels.trainer.errors import TrainerError


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32)])
@pytest.mark.parametrize("settings", [ResNet18Settings(width=4), ViTTinySettings(patch=4, depth=1)])
def test_one_feature_vector_an_image(settings, channels, size):
    encoder = build_backbone(settings, channels, size)
    assert encoder(torch.randn(2, channels, size, size)).shape == (2, encoder.features)


def test_resnet18_of_standard_width_has_torchvisions_parameters_but_for_the_stem_and_the_head():
    ours = {name: value.shape for name, value in ResNet18(3, 64).state_dict().items()}
    theirs = {name: value.shape for name, value in torchvision.models.resnet18().state_dict().items()}
    assert ours.pop("conv1.weight") == (64, 3, 3, 3)
    assert ours == {name: shape for name, shape in theirs.items() if not name.startswith(("conv1.", "fc."))}


def test_the_penalty_covers_all_convolutions_and_nothing_else():
    covered = {name for name, _, _ in OrthogonalityPenalty(ResNet18(3, 4)).weights()}
    assert len(covered) == 20
    assert all("conv" in name or "downsample.0" in name for name in covered)


def test_a_patch_that_does_not_divide_the_image_is_refused():
    with pytest.raises(TrainerError, match=r"backbone\.patch=5 does not divide the image size 8"):
        build_backbone(ViTTinySettings(patch=5), 1, 8)
