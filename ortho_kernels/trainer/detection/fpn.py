"""FPN (Lin et al., CVPR 2017): a feature pyramid of all stages, and two linear layers as the box head.

The pyramid's layers have batch norms, as in MoCo (He et al., CVPR 2020, section 4.2).
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from .parts import Maps, Parts, Protocol
from .settings import DetectorSettings
from .stages import Stage

PROTOCOL = Protocol(
    steps=18_000,
    milestones=(12_000 / 18_000, 16_000 / 18_000),
    proposals_before_nms={"training": 2_000, "testing": 1_000},
    proposals_after_nms={"training": 1_000, "testing": 1_000},
)
ANCHOR = 8  # side in strides of each map: 32 to 512 pixels at strides of 4 to 64
RESOLUTION = 7  # of a region that is cut from a map


class Pyramid(nn.Module):
    """The maps of all stages, each with what the coarser ones add to it, and a coarser one on top."""

    def __init__(self, stages: Sequence[Stage], channels: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stage.module for stage in stages)
        self.pyramid = FeaturePyramidNetwork(
            [stage.channels for stage in stages], channels, LastLevelMaxPool(), norm_layer=nn.BatchNorm2d
        )
        self.out_channels = channels  # torchvision reads it

    def forward(self, images: Tensor) -> Maps:
        maps: Maps = OrderedDict()
        for place, stage in enumerate(self.stages):
            images = stage(images)
            maps[str(place)] = images
        return self.pyramid(maps)


def build_fpn(stages: Sequence[Stage], settings: DetectorSettings) -> Parts:
    strides = [stage.stride for stage in stages]
    strides.append(2 * strides[-1])
    channels = settings.fpn_channels
    return Parts(
        maps=Pyramid(stages, channels),
        channels=channels,
        anchors=tuple((ANCHOR * stride,) for stride in strides),
        pooling=MultiScaleRoIAlign([str(place) for place in range(len(stages))], RESOLUTION, sampling_ratio=0),
        head=TwoMLPHead(channels * RESOLUTION**2, settings.head_width),
        features=settings.head_width,
        divisor=strides[-1],
    )
