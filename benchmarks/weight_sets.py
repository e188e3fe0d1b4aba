"""The conv and linear weights of well-known models, with torch's own initialization and without the rest of the model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import model_shapes

MODELS = ("resnet18", "resnet50", "wrn28_2", "vit_tiny", "vit_small", "vit_base")


def weights_of(model: str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Leaves that require a gradient, one for each conv and linear weight."""
    generator = torch.Generator(device).manual_seed(0)
    weights = []
    for shape in model_shapes.MODELS[model]():
        weight = torch.empty(shape, device=device)
        nn.init.kaiming_uniform_(weight, a=5**0.5, generator=generator)
        weights.append(weight.to(dtype).requires_grad_())
    return weights
