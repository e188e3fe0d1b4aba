"""What tells one kind of detector from another: its maps, its box head, and the numbers of its published protocol."""

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn
from torchvision.ops import MultiScaleRoIAlign

Maps = OrderedDict[str, Tensor]  # (batch, channels, height, width) each, by name
RATIOS = (0.5, 1.0, 2.0)  # height over width of the anchors, in every detector


@dataclass(frozen=True)
class Protocol:
    """Of detectron2 and MoCo; docs/detection.md names the lines."""

    steps: int
    milestones: tuple[float, ...]  # shares of the steps
    proposals_before_nms: dict[str, int]  # of each map, for training and testing
    proposals_after_nms: dict[str, int]


@dataclass(frozen=True)
class Parts:
    maps: nn.Module  # pictures to Maps, all of `channels`
    channels: int
    anchors: tuple[tuple[int, ...], ...]  # sides in pixels, for each map
    pooling: MultiScaleRoIAlign
    head: nn.Module  # pooled regions to vectors `(regions, features)`
    features: int
    divisor: int  # of the sides that pictures are padded to, so that every map's stride divides them
