"""Faster R-CNN on an encoder: its parts, its losses, its statistics, and a training that was cut off."""

import math
from dataclasses import asdict

import pytest
import torch
from torch import nn
from torch.nn import functional
from voc_pictures import SHAPES, write_voc

from ortho_kernels.trainer.backbones import BACKBONES, build_encoder
from ortho_kernels.trainer.data.preprocess import Preprocess
from ortho_kernels.trainer.detection.batches import Batches
from ortho_kernels.trainer.detection.checkpoint import Checkpoint
from ortho_kernels.trainer.detection.networks import build_detector, complete
from ortho_kernels.trainer.detection.scoring import predict
from ortho_kernels.trainer.detection.settings import DetectorSettings
from ortho_kernels.trainer.detection.training import rate_at, take_statistics, train, weight_groups
from ortho_kernels.trainer.detection.voc import read_voc
from ortho_kernels.trainer.errors import TrainerError

GRAY = Preprocess(1, 16, 16, (0.4,), (0.25,))
CPU = torch.device("cpu")
DETECTORS = ("c4", "fpn")


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    sets = {("2007", "trainval"): 8}
    return read_voc(write_voc(tmp_path_factory.mktemp("voc"), sets, size=(48, 40)), list(sets), SHAPES)


def small(**options):
    sizes = {"short_side": 32, "batch_size": 2, "regions": 16, "anchors": 16, "fpn_channels": 8, "head_width": 16}
    return complete(DetectorSettings(**{"steps": 6, "warmup": 2, "norm_batches": 2, **sizes, **options}))


def encoder(**options):
    torch.manual_seed(0)
    return build_encoder(BACKBONES["resnet18"](**{"width": 4, **options}), 1, 16).eval()


def build(settings, seed=0, **options):
    return build_detector(encoder(**options), GRAY, len(SHAPES), settings, seed, "an encoder")


def batches_of(voc, settings, seed=0):
    return Batches(voc, settings, GRAY.channels, seed, CPU)


def unsaved(folder, asked=None, **options):
    return Checkpoint(folder / "cut-off.ckpt", **{"every": 1000, "resume": False, **options}, asked=asked or {})


def states(detector):
    return {name: value.clone() for name, value in detector.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def test_the_published_protocol_is_the_default():
    c4, fpn = (asdict(complete(DetectorSettings(detector=kind))) for kind in DETECTORS)
    assert c4 | {"detector": "", "steps": 0, "milestones": []} == fpn | {"detector": "", "steps": 0, "milestones": []}
    assert [c4["steps"] * share for share in c4["milestones"]] == [18_000, 22_000]
    assert [fpn["steps"] * share for share in fpn["milestones"]] == [12_000, 16_000]
    settings = DetectorSettings()
    assert settings.training_sides == [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800]
    assert settings.longest_side == 1333


def test_the_rate_rises_and_falls_as_detectron2s():
    settings = complete(DetectorSettings())
    expected = {0: 0.02 / 1000, 50: 0.02 * (0.001 + 0.999 / 2), 100: 0.02, 17_999: 0.02, 18_000: 2e-3, 22_000: 2e-4}
    assert {step: rate_at(settings, step) for step in expected} == pytest.approx(expected)
    assert rate_at(complete(DetectorSettings(batch_size=4)), 100) == pytest.approx(0.005)


@pytest.mark.parametrize(("stem", "stride"), [("imagenet", 16), ("cifar", 4)])
def test_c4_proposes_from_the_third_stage(stem, stride):
    detector = build(small(detector="c4"), stem=stem)
    maps = detector.backbone(torch.randn(2, 1, 64, 96))
    assert {name: tuple(value.shape) for name, value in maps.items()} == {"0": (2, 16, 64 // stride, 96 // stride)}
    assert detector.rpn.anchor_generator.sizes == (tuple(stride * side for side in (2, 4, 8, 16, 32)),)
    assert detector.rpn.anchor_generator.aspect_ratios == ((0.5, 1.0, 2.0),)
    assert detector.roi_heads.box_roi_pool.output_size == (14, 14)


def test_the_anchors_of_the_imagenet_stem_are_the_published_ones():
    assert build(small(detector="c4"), stem="imagenet").rpn.anchor_generator.sizes == ((32, 64, 128, 256, 512),)
    assert build(small(detector="fpn"), stem="imagenet").rpn.anchor_generator.sizes == (
        (32,),
        (64,),
        (128,),
        (256,),
        (512,),
    )


def test_the_box_head_of_c4_is_the_fourth_stage_of_the_encoder():
    ours = encoder()
    detector = build_detector(ours, GRAY, 3, small(detector="c4"), 0, "an encoder").eval()
    head = detector.roi_heads.box_head
    assert same(head.stage[0].state_dict(), ours.layer4.state_dict())
    regions = torch.randn(5, 16, 14, 14)
    by_hand = ours.layer4(regions)  # 7 x 7
    by_hand = (by_hand - head.norm.running_mean[:, None, None]) / (head.norm.running_var[:, None, None] + 1e-5).sqrt()
    torch.testing.assert_close(head(regions), by_hand.sum((2, 3)) / 49)
    assert detector.roi_heads.box_predictor.cls_score.weight.shape == (4, 32)


def test_the_maps_of_c4_are_the_encoders():
    ours, seen = encoder(), []
    ours.layer3.register_forward_hook(lambda layer, inputs, output: seen.append(output))
    images = torch.randn(1, 1, 32, 32)
    ours(images)
    detector = build_detector(ours, GRAY, 3, small(detector="c4"), 0, "an encoder").eval()
    torch.testing.assert_close(detector.backbone(images)["0"], seen[0])


@pytest.mark.parametrize(("stem", "strides"), [("imagenet", (4, 8, 16, 32, 64)), ("cifar", (1, 2, 4, 8, 16))])
def test_fpn_has_a_map_of_every_stage_and_one_more(stem, strides):
    detector = build(small(detector="fpn"), stem=stem)
    maps = detector.backbone(torch.randn(2, 1, 64, 128))
    assert list(maps) == ["0", "1", "2", "3", "pool"]
    assert [tuple(value.shape) for value in maps.values()] == [
        (2, 8, 64 // stride, 128 // stride) for stride in strides
    ]
    assert detector.rpn.anchor_generator.sizes == tuple((8 * stride,) for stride in strides)
    assert detector.roi_heads.box_head.fc6.weight.shape == (16, 8 * 7 * 7)


def test_the_pyramid_adds_what_coarser_maps_say():
    """Of the two coarsest maps, written out: lateral convolutions, the nearest values, a convolution each."""
    ours, seen = encoder(), []
    for stage in (ours.layer3, ours.layer4):
        stage.register_forward_hook(lambda layer, inputs, output: seen.append(output))
    images = torch.randn(1, 1, 32, 32)
    ours(images)
    detector = build_detector(ours, GRAY, 3, small(detector="fpn"), 0, "an encoder").eval()
    pyramid = detector.backbone.pyramid
    fourth = pyramid.inner_blocks[3](seen[1])
    third = pyramid.inner_blocks[2](seen[0]) + functional.interpolate(fourth, scale_factor=2, mode="nearest")
    maps = detector.backbone(images)
    torch.testing.assert_close(maps["3"], pyramid.layer_blocks[3](fourth))
    torch.testing.assert_close(maps["2"], pyramid.layer_blocks[2](third))
    assert torch.equal(maps["pool"], maps["3"][:, :, ::2, ::2])
    assert isinstance(pyramid.inner_blocks[0][1], nn.BatchNorm2d)


@pytest.mark.parametrize("kind", DETECTORS)
def test_strides_divide_what_the_network_sees(kind):
    detector = build(small(detector=kind)).eval()
    images, _ = detector.transform([torch.rand(1, 33, 47)])
    height, width = images.tensors.shape[2:]
    coarsest = list(detector.backbone(images.tensors).values())[-1]
    assert (height % coarsest.shape[2], width % coarsest.shape[3]) == (0, 0)


def test_pixels_are_normalized_as_the_encoders():
    detector = build(small(short_side=32)).eval()
    picture = torch.rand(1, 32, 32)
    seen = detector.transform([picture])[0].tensors
    torch.testing.assert_close(seen[0, :, :32, :32], (picture - 0.4) / 0.25)


@pytest.mark.parametrize("kind", DETECTORS)
def test_new_weights_are_a_function_of_the_seed(kind):
    first, again, other = (states(build(small(detector=kind), seed)) for seed in (0, 0, 1))
    assert same(first, again)
    assert not torch.equal(first["rpn.head.conv.0.0.weight"], other["rpn.head.conv.0.0.weight"])
    assert torch.equal(first["backbone.stages.0.0.weight"], other["backbone.stages.0.0.weight"])


@pytest.mark.parametrize("kind", DETECTORS)
def test_losses_fall_and_the_encoder_stays_as_it_was(voc, kind, tmp_path):
    settings = small(detector=kind, steps=40, lr=0.16, warmup=5)
    ours = encoder()
    before = states(ours)
    detector = build_detector(ours, GRAY, len(SHAPES), settings, 0, "an encoder")
    losses = train(detector, batches_of(voc, settings), settings, unsaved(tmp_path)).sum(1)
    assert losses[-8:].mean() < 0.8 * losses[:8].mean()
    assert same(states(ours), before)
    trained = states(detector)
    assert not torch.equal(trained["backbone.stages.0.0.weight"], before["conv1.weight"])


@pytest.mark.parametrize("kind", DETECTORS)
def test_a_training_that_was_cut_off_goes_on_to_the_bit(voc, kind, tmp_path):
    settings = small(detector=kind)
    whole = build(settings)
    losses = train(whole, batches_of(voc, settings), settings, unsaved(tmp_path / "whole"))

    class CutOff(Batches):
        def __getitem__(self, step):
            if step == 5:
                raise KeyboardInterrupt
            return super().__getitem__(step)

    with pytest.raises(KeyboardInterrupt):
        train(build(settings), CutOff(voc, settings, 1, 0, CPU), settings, unsaved(tmp_path, every=3))
    again = build(settings, seed=1)  # which is overwritten
    torch.manual_seed(99)
    resumed = train(again, batches_of(voc, settings), settings, unsaved(tmp_path, every=3, resume=True))
    assert torch.equal(resumed, losses)
    assert same(states(again), states(whole))


def test_a_checkpoint_of_other_options_is_refused(voc, tmp_path):
    settings = small()
    train(build(settings), batches_of(voc, settings), settings, unsaved(tmp_path, {"seed": 0, "root": "a"}))
    with pytest.raises(TrainerError, match=r"differs in root\. Remove it, or leave resume out"):
        train(
            build(settings),
            batches_of(voc, settings),
            settings,
            unsaved(tmp_path, {"seed": 0, "root": "b"}, resume=True),
        )


def test_a_loss_that_is_not_finite_stops_the_training(voc, tmp_path):
    settings = small(lr=1e6, warmup=0, steps=6)
    with pytest.raises(TrainerError, match="give a smaller lr, or more warmup"):
        train(build(settings), batches_of(voc, settings), settings, unsaved(tmp_path))


def test_weights_that_are_not_finite_are_not_saved(voc, tmp_path):
    settings, checkpoint = small(steps=1), unsaved(tmp_path)
    detector = build(settings)
    detector.rpn.head.cls_logits.bias.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(TrainerError, match=r"rpn.head.cls_logits.bias is not finite after step 0, which is not saved"):
        train(detector, batches_of(voc, settings), settings, checkpoint)
    assert not checkpoint.path.exists()


def test_pictures_are_a_function_of_the_seed_and_the_step(voc):
    settings = small()
    first, again = (batches_of(voc, settings)[3] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first[0], again[0], strict=True))
    assert all(torch.equal(a["boxes"], b["boxes"]) for a, b in zip(first[1], again[1], strict=True))
    seen = [boxes["labels"].tolist() for step in range(4) for boxes in batches_of(voc, settings)[step][1]]
    assert sorted(seen) == sorted(boxes.labels.tolist() for boxes in voc.truths)  # an epoch of 8 pictures
    assert all(picture.shape[0] == 1 for picture in first[0])


def test_the_statistics_of_batch_norms_are_means_over_batches(voc):
    settings = small(detector="c4")
    detector, batches = build(settings), batches_of(voc, settings)
    norm, seen = detector.backbone.stages[0][1], []
    norm.register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    take_statistics(detector, batches, 6, 3)
    assert len(seen) == 3
    torch.testing.assert_close(norm.running_mean, sum(x.mean((0, 2, 3)) for x in seen) / 3)
    torch.testing.assert_close(norm.running_var, sum(x.var((0, 2, 3)) for x in seen) / 3)
    assert norm.momentum == 0.1
    before = states(detector)
    take_statistics(detector, batches, 6, 0)
    assert same(states(detector), before)


def test_weights_of_norms_do_not_decay():
    detector = build(small(detector="fpn"))
    decaying, norms = weight_groups(detector, 0.1)
    assert (decaying["weight_decay"], norms["weight_decay"]) == (0.1, 0.0)
    assert len(decaying["params"]) + len(norms["params"]) == len(list(detector.parameters()))
    own = [layer for layer in detector.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms["params"]) == 2 * len(own)


def test_predictions_lie_within_their_pictures(voc):
    found = predict(build(small(detector="c4")), voc, channels=1)
    assert len(found) == len(voc)
    for each in found:
        assert each["boxes"].shape == (len(each["scores"]), 4)
        assert set(each["labels"].tolist()) <= {1, 2, 3}
        assert not len(each["boxes"]) or (each["boxes"].amax(0) <= torch.tensor([48.0, 40.0, 48.0, 40.0]) + 1e-3).all()
        assert all(math.isfinite(score) for score in each["scores"].tolist())
