"""A method never makes the host wait for the device: not in forward, in backward, nor around the optimizer step."""

import pytest
import torch
from small_methods import build, views_of
from waits import Waits

from ortho_kernels.trainer.backbones import BACKBONES, build_backbone
from ortho_kernels.trainer.methods import METHODS


def train(method, views, steps=2):
    parameters = [parameter for parameter in method.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    with Waits() as waits:
        for step in range(steps):
            method.progress = step / steps
            for _ in range(2):  # accumulated
                method(views).loss.backward()
            method.before_step(step, steps)
            optimizer.step()
            method.after_step(step, steps)
            optimizer.zero_grad()
    return waits.seen


@pytest.mark.parametrize("name", METHODS)
def test_no_method_waits(name):
    method = build(name)
    assert train(method, views_of(method)) == []


@pytest.mark.parametrize("backbone", ["resnet18", "vit_tiny"])
@pytest.mark.parametrize("name", ["dino", "mocov3"])
def test_nor_do_its_encoders_and_their_copies(name, backbone):
    options = {"resnet18": {"width": 4}, "vit_tiny": {"patch": 8, "depth": 1}}[backbone]
    encoder = build_backbone(BACKBONES[backbone].settings(**options), channels=3, size=16)
    method = METHODS[name](encoder, build(name).settings)
    pictures = torch.randn(2, 4, 3, 16, 16)
    assert train(method, [*pictures, *(pictures[..., :8, :8] if name == "dino" else [])]) == []
