"""C4 (He et al., CVPR 2016, appendix A): the last stage but one proposes regions, and the last stage is their box head.

A batch norm follows the box head, as in MoCo (He et al., CVPR 2020, appendix).
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.ops import MultiScaleRoIAlign

from .parts import Maps, Parts, Protocol
from .settings import DetectorSettings
from .stages import Stage

PROTOCOL = Protocol(
    steps=24_000,
    milestones=(18_000 / 24_000, 22_000 / 24_000),
    proposals_before_nms={"training": 12_000, "testing": 6_000},
    proposals_after_nms={"training": 2_000, "testing": 1_000},
)
ANCHORS = (2, 4, 8, 16, 32)  # sides in strides of the map: 32 to 512 pixels at a stride of 16
RESOLUTION = 14  # of a region that is cut from the map


class OneMap(nn.Module):
    """What the stages put out, one after the other."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.stages = nn.Sequential(*(stage.module for stage in stages))
        self.out_channels = stages[-1].channels  # torchvision reads it

    def forward(self, images: Tensor) -> Maps:
        return OrderedDict({"0": self.stages(images)})


class StageHead(nn.Module):
    """The last stage, a batch norm, and the mean over positions."""

    def __init__(self, stage: nn.Module, channels: int) -> None:
        super().__init__()
        self.stage = stage
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, regions: Tensor) -> Tensor:
        return self.norm(self.stage(regions)).mean((2, 3))


def build_c4(stages: Sequence[Stage], settings: DetectorSettings) -> Parts:
    *before, last = stages
    seen = before[-1]
    return Parts(
        maps=OneMap(before),
        channels=seen.channels,
        anchors=(tuple(side * seen.stride for side in ANCHORS),),
        pooling=MultiScaleRoIAlign(["0"], RESOLUTION, sampling_ratio=0),
        head=StageHead(last.module, last.channels),
        features=last.channels,
        divisor=seen.stride,
    )
