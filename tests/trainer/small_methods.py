"""Methods small enough to check by hand, around an encoder without batch norm."""

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from ortho_kernels.trainer.backbones import Wrapped
from ortho_kernels.trainer.methods import METHODS

WITH_QUEUE = ["mocov2plus", "nnbyol", "nnclr", "swav"]
WITH_MEMORY = ["dino", *WITH_QUEUE]
SMALL = {"hidden": 10, "projection": 5, "prediction_hidden": 7, "queue": 24, "prototypes": 12}
SMALL |= {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
OF_PAIRS = [name for name in METHODS if name != "mae"]  # that compare views of a picture


class Encoder(nn.Sequential):
    features = 6

    def __init__(self):
        super().__init__(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, self.features), nn.ReLU())


def transformer(**options):
    """Of pictures of 4 x 4 pixels, in four patches."""
    small = {"img_size": 4, "patch_size": 2, "embed_dim": 8, "depth": 1, "num_heads": 2, "num_classes": 0}
    return Wrapped(VisionTransformer(**small | options), 8)


def build(name, **options):
    torch.manual_seed(0)
    method = METHODS[name]
    fields = method.Settings.__dataclass_fields__
    encoder = transformer() if name == "mae" else Encoder()
    return method(encoder, method.Settings(**{k: v for k, v in SMALL.items() if k in fields} | options))


def backbone_of(name):
    """A word for the backbone: MAE's has to have patches."""
    return "backbone=vit_tiny" if name == "mae" else "backbone=resnet18"


def small_heads(name):
    """The method's queues and prototypes, as words: small, and taking part from the first step on."""
    small = {"prototypes": 16, "freeze": 0.0, "queue": 64, "queue_start": 0.0}
    return [f"method.{key}={value}" for key, value in small.items() if hasattr(METHODS[name].Settings, key)]


def views_of(method, batch=8, local=3):
    """Two large views, or one, and small ones for the methods that take them."""
    generator = torch.Generator().manual_seed(1)
    views = [torch.randn(batch, 3, 4, 4, generator=generator) for _ in range(2)]
    if method.Settings().views == "one":
        return views[:1]
    if method.Settings().views == "multicrop":
        views += [torch.randn(batch, 3, 2, 2, generator=generator) for _ in range(local)]
    return views
