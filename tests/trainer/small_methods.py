"""Methods small enough to check by hand, around an encoder without batch norm."""

import torch
from torch import nn

from ortho_kernels.trainer.methods import METHODS

WITH_QUEUE = ["mocov2plus", "nnbyol", "nnclr", "swav"]
WITH_MEMORY = ["dino", *WITH_QUEUE]
SMALL = {"hidden": 10, "projection": 5, "prediction_hidden": 7, "queue": 24, "prototypes": 12}


class Encoder(nn.Sequential):
    features = 6

    def __init__(self):
        super().__init__(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, self.features), nn.ReLU())


def build(name, **options):
    torch.manual_seed(0)
    method = METHODS[name]
    fields = method.Settings.__dataclass_fields__
    return method(Encoder(), method.Settings(**{k: v for k, v in SMALL.items() if k in fields} | options))


def small_heads(name):
    """The method's queues and prototypes, as words: small, and taking part from the first step on."""
    small = {"prototypes": 16, "freeze": 0.0, "queue": 64, "queue_start": 0.0}
    return [f"method.{key}={value}" for key, value in small.items() if hasattr(METHODS[name].Settings, key)]


def views_of(method, batch=8, local=3):
    """Two large views, and small ones for the methods that take them."""
    generator = torch.Generator().manual_seed(1)
    views = [torch.randn(batch, 3, 4, 4, generator=generator) for _ in range(2)]
    if method.Settings().views == "multicrop":
        views += [torch.randn(batch, 3, 2, 2, generator=generator) for _ in range(local)]
    return views
