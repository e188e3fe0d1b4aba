"""The conv and linear weights of well-known models, with torch's own initialization and without the rest of the model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MODELS = ("resnet18", "resnet50", "wrn28_2", "vit_tiny", "vit_small", "vit_base")


def weights_of(model: str) -> list[Tensor]:
    """float32 leaves that require a gradient, one for each conv and linear weight."""
    shapes = _wrn28_2() if model == "wrn28_2" else _shapes(_on_meta(model))
    generator = torch.Generator().manual_seed(0)
    weights = []
    for shape in shapes:
        weight = torch.empty(shape)
        nn.init.kaiming_uniform_(weight, a=5**0.5, generator=generator)
        weights.append(weight.requires_grad_())
    return weights


def _on_meta(model: str) -> nn.Module:
    with torch.device("meta"):
        if model.startswith("vit"):
            import timm

            return timm.create_model(f"{model}_patch16_224")
        import torchvision

        module = getattr(torchvision.models, model)()
        if model == "resnet18":  # the stem for 32 x 32 images
            module.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        return module


def _shapes(module: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(part.weight.shape) for part in module.modules() if isinstance(part, (nn.Conv2d, nn.Linear))]


def _wrn28_2() -> list[tuple[int, ...]]:
    """Zagoruyko and Komodakis (2016): three stages of four blocks, 16 times 2 channels wide, for 10 classes."""
    shapes: list[tuple[int, ...]] = [(16, 3, 3, 3)]
    before = 16
    for width in (32, 64, 128):
        for block in range(4):
            shapes += [(width, before, 3, 3), (width, width, 3, 3)]
            if block == 0:
                shapes.append((width, before, 1, 1))
            before = width
    return [*shapes, (10, 128)]
