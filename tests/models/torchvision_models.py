"""Architectures of torchvision."""

from functools import partial

from architectures import BARE, Architecture, arguments
from torch import nn
from torchvision import models, ops
from torchvision.models import convnext, resnet, segmentation, swin_transformer, video


class Deformable(nn.Module):
    """A deformable convolution with the usual one that predicts its offsets."""

    def __init__(self):
        super().__init__()
        self.offsets = nn.Conv2d(3, 18, 3)
        self.convolution = ops.DeformConv2d(3, 8, 3)

    def forward(self, x):
        return self.convolution(x, self.offsets(x))


def bottlenecks(**options):
    return partial(models.ResNet, resnet.Bottleneck, [1, 1, 1, 1], **options)


def video_resnet():
    layers = [video.resnet.Conv3DSimple] * 4
    return video.VideoResNet(video.resnet.BasicBlock, layers, [1, 1, 1, 1], video.resnet.BasicStem)


def mvit():
    sizes = {"num_heads": 1, "input_channels": 8, "output_channels": 8}
    kernels = {"kernel_q": [3, 3, 3], "kernel_kv": [3, 3, 3], "stride_q": [1, 1, 1], "stride_kv": [1, 2, 2]}
    version_2 = {
        "residual_pool": True,
        "residual_with_cls_embed": False,
        "rel_pos_embed": True,
        "proj_after_attn": True,
    }
    return video.mvit.MViT((32, 32), 4, [video.mvit.MSBlockConfig(**sizes, **kernels)] * 2, **version_2)


def swin(**options):
    return partial(models.SwinTransformer, [4, 4], 8, [1, 1], [1, 2], [2, 2], **options)


V2 = {"block": swin_transformer.SwinTransformerBlockV2, "downsample_layer": swin_transformer.PatchMergingV2}
CONVNEXT_BLOCKS = [convnext.CNBlockConfig(16, 32, 1), convnext.CNBlockConfig(32, None, 1)]
LRASPP = partial(segmentation.lraspp_mobilenet_v3_large, weights=None, weights_backbone=None)

image = arguments(x=(2, 3, 32, 32))
large = arguments(x=(2, 3, 64, 64))

TORCHVISION = [
    Architecture("alexnet", partial(models.alexnet, num_classes=3), large),
    Architecture("resnet18", models.resnet18, image),
    Architecture("wide_resnet", bottlenecks(width_per_group=128), image),
    Architecture("resnext", bottlenecks(groups=32, width_per_group=4), image),
    Architecture("mobilenet_v2", partial(models.mobilenet_v2, width_mult=0.25), image),
    Architecture("mobilenet_v3", partial(models.mobilenet_v3_small, width_mult=0.5), image),
    Architecture("efficientnet", models.efficientnet_b0, image),
    Architecture("convnext", partial(models.ConvNeXt, CONVNEXT_BLOCKS), image),
    Architecture("regnet", models.regnet_y_400mf, image),
    Architecture("densenet", partial(models.DenseNet, 8, (2, 2, 2, 2), 16), image),
    Architecture("shufflenet_v2", models.shufflenet_v2_x0_5, image),
    Architecture("squeezenet", models.squeezenet1_1, large),
    Architecture("googlenet", partial(models.googlenet, init_weights=False, aux_logits=False), large),
    Architecture("lraspp", LRASPP, arguments(input=(2, 3, 32, 32))),
    Architecture("video_resnet", video_resnet, arguments(x=(1, 3, 4, 16, 16))),
    Architecture("vit", partial(models.VisionTransformer, 32, 16, 1, 2, 16, 32), image),
    Architecture("swin", swin(), image),
    Architecture("swin_v2", swin(**V2), image),
    Architecture("maxvit", partial(models.MaxVit, (32, 32), 8, 2, [8, 16], [1, 1], 4, 0.0), image),
    Architecture("mvit", mvit, arguments(x=(1, 3, 4, 32, 32)), {"*.attn.rel_pos_?": BARE}),
    Architecture("deformable", Deformable, image),
]
