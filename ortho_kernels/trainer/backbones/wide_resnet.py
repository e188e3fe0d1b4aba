"""WRN-28-2 (Zagoruyko, Komodakis, BMVC 2016): a thin and deep residual network for small images."""

from collections import OrderedDict
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import TrainerError
from ..options import at_least, option
from .base import Backbone


@dataclass
class WRN(Backbone):
    name: str = "wrn28_2"
    depth: int = option(28, "6 n + 4: n blocks of two convolutions in each of three stages", at_least(10))
    factor: int = option(2, "stages have 16, 32 and 64 channels times this", at_least(1))

    def build(self, channels: int, size: int) -> nn.Module:
        if (self.depth - 4) % 6:
            raise TrainerError(
                f"backbone.depth of a wide ResNet must be 6 n + 4 (10, 16, 22, 28, ...); got {self.depth}."
            )
        return WideResNet(self.depth, self.factor, channels)


class PreActivationBlock(nn.Module):
    """Norm, ReLU, convolution, twice, beside a shortcut that starts behind the first ReLU where shapes change."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        return shortcut + self.conv2(F.relu(self.bn2(self.conv1(active))))


class WideResNet(nn.Sequential):
    def __init__(self, depth: int, factor: int, channels: int) -> None:
        stages = [16 * factor, 32 * factor, 64 * factor]
        blocks: dict[str, nn.Module] = {}
        inputs = 16
        for index, outputs in enumerate(stages):
            strides = [1 if index == 0 else 2] + [1] * ((depth - 4) // 6 - 1)
            widths = [inputs] + [outputs] * (len(strides) - 1)
            blocks[f"stage{index + 1}"] = nn.Sequential(
                *(PreActivationBlock(width, outputs, stride) for width, stride in zip(widths, strides, strict=True))
            )
            inputs = outputs
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(channels, 16, 3, padding=1, bias=False),
                **blocks,
                norm=nn.BatchNorm2d(inputs),
                relu=nn.ReLU(inplace=True),
                avgpool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
            )
        )
        self.features = inputs
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
