"""ResNet-18 and ResNet-50 (He et al., CVPR 2016) of any width, with the stem for small images or for large ones.

Modules are named as torchvision names them, so weights of width 64 move between the two.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn
from torchvision import models
from torchvision.models.resnet import BasicBlock, Bottleneck

from ..errors import TrainerError
from ..options import at_least, one_of, option
from .base import Backbone
from .library import building


@dataclass
class ResNetBackbone(Backbone):
    model: ClassVar[str]  # torchvision's
    block: ClassVar[type[BasicBlock] | type[Bottleneck]]
    depths: ClassVar[tuple[int, ...]]  # blocks of each stage
    width: int = option(64, "channels of the first stage; 64 is standard, 8 and 16 suit a CPU", at_least(1))
    stem: str = option("cifar", "3 x 3 for small images, or 7 x 7 with stride and pooling", one_of("cifar", "imagenet"))

    def build(self, channels: int, size: int) -> nn.Module:
        return ResNet(self.block, self.depths, channels, self.width, self.stem)

    def library_network(self, channels: int, size: int) -> nn.Module | None:
        """torchvision's network of standard width with this stem, and without its classifier."""
        if self.width != 64:
            return None
        network = models.ResNet(self.block, list(self.depths))
        stem = _stem(channels, self.width, self.stem)
        network.conv1, network.maxpool = stem["conv1"], stem.get("maxpool", nn.Identity())
        network.fc = nn.Identity()
        return network

    def trained_network(self, channels: int, size: int) -> nn.Module | None:
        if self.width != 64:
            return None
        if self.stem != "imagenet":
            raise TrainerError(
                f"init=pretrained: {self.model} was trained with another stem. Give backbone.stem=imagenet."
            )
        with building(self, cache="TORCH_HOME"):
            return models.get_model(self.model, weights="DEFAULT")


@dataclass
class ResNet18(ResNetBackbone):
    name: str = "resnet18"
    model = "resnet18"
    block = BasicBlock
    depths = (2, 2, 2, 2)


@dataclass
class ResNet50(ResNetBackbone):
    name: str = "resnet50"
    model = "resnet50"
    block = Bottleneck
    depths = (3, 4, 6, 3)


class ResNet(nn.Sequential):
    def __init__(
        self, block: type[BasicBlock] | type[Bottleneck], depths: Sequence[int], channels: int, width: int, stem: str
    ) -> None:
        layers = _stem(channels, width, stem)
        inputs = width
        for index, depth in enumerate(depths):
            outputs = width * 2**index
            layers[f"layer{index + 1}"] = _stage(block, inputs, outputs, depth, stride=1 if index == 0 else 2)
            inputs = outputs * block.expansion
        super().__init__(OrderedDict(**layers, avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten()))
        self.features = inputs
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _stem(channels: int, width: int, stem: str) -> dict[str, nn.Module]:
    large = stem == "imagenet"
    convolution = nn.Conv2d(channels, width, 7 if large else 3, 2 if large else 1, 3 if large else 1, bias=False)
    layers: dict[str, nn.Module] = {"conv1": convolution, "bn1": nn.BatchNorm2d(width), "relu": nn.ReLU(inplace=True)}
    return layers | {"maxpool": nn.MaxPool2d(3, 2, 1)} if large else layers


def _stage(
    block: type[BasicBlock] | type[Bottleneck], inputs: int, width: int, depth: int, stride: int
) -> nn.Sequential:
    outputs = width * block.expansion
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
    return nn.Sequential(block(inputs, width, stride, shortcut), *(block(outputs, width) for _ in range(depth - 1)))
