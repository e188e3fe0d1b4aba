"""A ResNet with the stem for large images as transformers' ResNetModel (He et al., CVPR 2016).

That is torchvision's ResNet of any depths and width under other names, so our ResNet with that stem.
"""

import re

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from ..backbones import ResNet
from .conversion import Conversion, NotConvertible, fill_plain, replaced

KIND = "ResNet"
FIRST_OF_BLOCK = re.compile(r"layer(\d+)\.(\d+)\.conv1\.weight")
IN_BLOCK = re.compile(r"layer(\d+)\.(\d+)\.(?:(conv|bn)(\d)|downsample\.([01]))\.(\w+)")
STEM = [("conv1.", "embedder.embedder.convolution."), ("bn1.", "embedder.embedder.normalization.")]
LAYERS = {"conv": "convolution", "bn": "normalization", "0": "convolution", "1": "normalization"}


def is_resnet(weights: dict[str, Tensor]) -> bool:
    """Whether the weights have torchvision's names."""
    return "layer1.0.conv1.weight" in weights


def convert_resnet(network: nn.Module, channels: int) -> Conversion:
    """Raises NotConvertible where transformers has no such ResNet."""
    weights = network.state_dict()
    stem = weights.get("conv1.weight")
    if stem is None or stem.shape[-1] != 7:
        ours = "several convolutions" if stem is None else f"a convolution of {stem.shape[-2]} x {stem.shape[-1]}"
        raise NotConvertible(
            f"its stem is {ours}, and transformers' ResNet begins with 7 x 7 and pooling, as a run with "
            "backbone.stem=imagenet does"
        )
    width = len(stem)
    blocks = [int(found[1]) for found in map(FIRST_OF_BLOCK.fullmatch, weights) if found]  # the stage of each
    depths = [blocks.count(stage) for stage in sorted(set(blocks))]
    block = Bottleneck if "layer1.0.conv3.weight" in weights else BasicBlock
    with torch.device("meta"):
        plain = ResNet(block, depths, channels, width, "imagenet")
    fill_plain(plain, weights, KIND)
    config = {
        "architectures": ["ResNetModel"],
        "model_type": "resnet",
        "num_channels": channels,
        "embedding_size": width,
        "hidden_sizes": [width * block.expansion * 2**stage for stage in range(len(depths))],
        "depths": depths,
        "layer_type": "bottleneck" if block is Bottleneck else "basic",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
    }
    theirs = {_transformers_name(name): weight for name, weight in weights.items()}
    return Conversion(KIND, plain.features, config, theirs, plain)


def _transformers_name(name: str) -> str:
    if not (found := IN_BLOCK.fullmatch(name)):
        return replaced(name, STEM)
    stage, block, layer, number, of_shortcut, tensor = found.groups()
    part = f"shortcut.{LAYERS[of_shortcut]}" if of_shortcut else f"layer.{int(number) - 1}.{LAYERS[layer]}"
    return f"encoder.stages.{int(stage) - 1}.layers.{block}.{part}.{tensor}"
