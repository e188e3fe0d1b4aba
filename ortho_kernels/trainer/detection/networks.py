"""Faster R-CNN (Ren et al., NeurIPS 2015) on an encoder, of torchvision's parts."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.rpn import RPNHead

from ..data.preprocess import Preprocess
from ..randomness import preserve_global_generators, seed_globally
from . import c4, fpn
from .parts import RATIOS, Parts, Protocol
from .settings import DetectorSettings
from .stages import Stage, split_stages

Settings = TypeVar("Settings", bound=DetectorSettings)
KINDS: dict[str, tuple[Callable[[Sequence[Stage], DetectorSettings], Parts], Protocol]] = {
    "c4": (c4.build_c4, c4.PROTOCOL),
    "fpn": (fpn.build_fpn, fpn.PROTOCOL),
}


def build_detector(
    encoder: nn.Module, preprocess: Preprocess, classes: int, settings: DetectorSettings, seed: int, name: str
) -> FasterRCNN:
    """A detector of so many classes, the background not counted, whose first weights are the encoder's.

    In training it takes float32 pictures in [0, 1], `(channels, height, width)` each and scaled already, and `boxes` and
    `labels` for each, and returns losses by name. In evaluation it scales pictures itself, and returns `boxes`, `labels` and
    `scores` for each, in pixels of the picture as it was given. All weights are trained. New ones are a function of the
    seed.

    Raises TrainerError, by the encoder's `name`, where it has no stages.
    """
    stages = split_stages(copy.deepcopy(encoder).requires_grad_(True), preprocess.channels, preprocess.size, name)
    build, protocol = KINDS[settings.detector]
    device = next(encoder.parameters()).device
    with preserve_global_generators(device):
        seed_globally(seed, "detector")
        parts = build(stages, settings)
        anchors = AnchorGenerator(parts.anchors, (RATIOS,) * len(parts.anchors))
        proposal_head = RPNHead(parts.channels, anchors.num_anchors_per_location()[0])
        predictor = _predictor(parts.features, classes)
    before, after = protocol.proposals_before_nms, protocol.proposals_after_nms
    detector = FasterRCNN(
        parts.maps,
        min_size=settings.short_side,
        max_size=settings.longest_side,
        image_mean=list(preprocess.mean),
        image_std=list(preprocess.std),
        rpn_anchor_generator=anchors,
        rpn_head=proposal_head,
        rpn_pre_nms_top_n_train=before["training"],
        rpn_pre_nms_top_n_test=before["testing"],
        rpn_post_nms_top_n_train=after["training"],
        rpn_post_nms_top_n_test=after["testing"],
        rpn_batch_size_per_image=settings.anchors,
        box_roi_pool=parts.pooling,
        box_head=parts.head,
        box_predictor=predictor,
        box_batch_size_per_image=settings.regions,
        size_divisible=parts.divisor,
        _skip_resize=True,  # in training, where `augment` has scaled the pictures
    )
    return detector.to(device).train()


def complete(settings: Settings) -> Settings:
    """With the steps and milestones of the detector's protocol where none are given."""
    protocol = KINDS[settings.detector][1]
    milestones = list(protocol.milestones) if settings.milestones is None else settings.milestones
    return replace(settings, steps=settings.steps or protocol.steps, milestones=milestones)


def _predictor(features: int, classes: int) -> FastRCNNPredictor:
    """Its first predictions are near to equal scores, and to the regions as they are."""
    predictor = FastRCNNPredictor(features, classes + 1)
    for layer, deviation in ((predictor.cls_score, 0.01), (predictor.bbox_pred, 0.001)):
        nn.init.normal_(layer.weight, std=deviation)
        nn.init.zeros_(layer.bias)
    return predictor
