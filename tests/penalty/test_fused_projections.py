"""Fused projections by name, and the listed classes of torch, torchvision and timm compared with their own `forward`."""

import pytest
import torch
from forward_rows import check, class_of, listed, tokens
from torch import nn

from ortho_kernels import OrthogonalityPenalty
from ortho_kernels.penalty.fused_projections import fused_projections


class Attention(nn.Module):
    """A user's own."""

    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(4, 12), nn.Linear(4, 4)


UNKNOWN = (
    "is qkv of Attention, whose cut is unknown; if its output is q, k and v one after the other, "
    'declare so by split_qkv="{}"'
)


def blocks(attention=Attention):
    return nn.ModuleDict({"blocks": nn.Sequential(nn.ModuleDict({"attn": attention()}))})


def cuts(encoder, split_qkv):
    """The matrices in each weight that a penalty cuts."""
    covered = OrthogonalityPenalty(encoder, split_qkv=split_qkv).weights()
    return {name: count for name, _, count in covered if count > 1}


def test_the_cut_of_a_class_that_is_not_listed_is_unknown_until_it_is_declared():
    assert fused_projections(Attention()) == {"qkv.weight": UNKNOWN.format("qkv")}
    assert fused_projections(nn.ModuleDict({"attn": Attention()})) == {"attn.qkv.weight": UNKNOWN.format("attn.qkv")}
    assert fused_projections(blocks()) == {"blocks.0.attn.qkv.weight": UNKNOWN.format("*.attn.qkv")}
    for pattern in ("*.attn.qkv", ["*.qkv.weight"], "blocks.0.attn.qkv"):
        assert cuts(blocks(), pattern) == {"blocks.0.attn.qkv.weight": 3}
    with pytest.raises(ValueError, match=r"can't cut blocks.0.attn.qkv.weight: it is qkv of Attention"):
        cuts(blocks(), True)


def test_what_is_declared_need_not_be_called_qkv():
    assert cuts(nn.Sequential(nn.Linear(4, 12), nn.Conv2d(4, 6, 1)), ["0", "1.weight"]) == {
        "0.weight": 3,
        "1.weight": 3,
    }


def test_a_weight_that_is_computed_can_be_declared():
    encoder = blocks()
    nn.utils.parametrizations.weight_norm(encoder.get_submodule("blocks.0.attn.qkv"))
    assert cuts(encoder, "*.qkv") == {"blocks.0.attn.qkv.weight": 3}


def test_a_layer_by_another_name_is_no_fused_projection():
    class Mamba(nn.Module):
        def __init__(self):
            super().__init__()
            self.in_proj, self.qkv_norm = nn.Linear(4, 12), nn.LayerNorm(4)

    assert fused_projections(Mamba()) == {}


def test_a_wrong_declaration_is_an_error():
    with pytest.raises(ValueError, match=r"split_qkv pattern '\*.qvk' matches none of the weights: blocks.0.attn.qkv"):
        cuts(blocks(), "*.qvk")
    with pytest.raises(ValueError, match=r"matches blocks.0.attn.proj.weight, whose output of 4 is no multiple of 3"):
        cuts(blocks(), "*.attn.*")


def test_a_declared_grouped_convolution_needs_whole_groups():
    encoder = nn.Sequential(nn.Conv2d(4, 12, 1, groups=2))
    with pytest.raises(ValueError, match=r"0.weight, a convolution of 2 groups, .* groups='whole'"):
        OrthogonalityPenalty(encoder, split_qkv="0")
    [(_, _, count)] = OrthogonalityPenalty(encoder, split_qkv="0", groups="whole").weights()
    assert count == 3


@pytest.mark.parametrize("given", [[], nn.Linear, ["0", 1]])
def test_only_patterns_declare(given):
    with pytest.raises(TypeError, match="split_qkv must be True, False or patterns of names"):
        OrthogonalityPenalty(nn.Sequential(nn.Linear(4, 12)), split_qkv=given)


def test_wrappers_are_left_out_of_the_names_that_patterns_match():
    compiled = torch.compile(blocks())
    name = "_orig_mod.blocks.0.attn.qkv.weight"
    assert fused_projections(compiled) == {name: UNKNOWN.format("*.attn.qkv")}
    for pattern in ("blocks.0.attn.qkv", "_orig_mod.blocks.0.attn.qkv"):
        assert cuts(compiled, pattern) == {name: 3}


def test_a_layer_that_two_modules_share_is_found_once():
    first, second = Attention(), Attention()
    second.qkv = first.qkv
    assert list(fused_projections(nn.Sequential(first, second))) == ["0.qkv.weight"]


def test_a_vision_transformer_of_timm_with_and_without_lora():
    timm = pytest.importorskip("timm")
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, embed_dim=24, num_heads=3, depth=1)
    assert fused_projections(vit) == {"blocks.0.attn.qkv.weight": 3}
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(vit, peft.LoraConfig(r=3, target_modules=["qkv"]))
    assert fused_projections(adapted) == {"base_model.model.blocks.0.attn.qkv.base_layer.weight": 3}


def test_a_subclass_counts_as_its_base():
    timm = pytest.importorskip("timm")

    class Mine(timm.layers.Attention):
        pass

    assert fused_projections(blocks(lambda: Mine(8, 2))) == {"blocks.0.attn.qkv.weight": 3}


def image(*shape):
    return torch.randn(shape or (2, 32, 4, 4))


# The class, its arguments, those of its forward, and the parts that are fused where they are not all three.
TIMM = [
    ("layers.attention.Attention", {"dim": 32}, (tokens(),)),
    ("layers.attention.AttentionRope", {"dim": 32}, (tokens(),)),
    ("layers.attention_pool2d.AttentionPool2d", {"in_features": 32, "feat_size": 4, "head_dim": 8}, (image(),)),
    ("layers.attention_pool2d.RotAttentionPool2d", {"in_features": 32, "ref_feat_size": 4, "head_dim": 8}, (image(),)),
    ("layers.diff_attention.DiffAttention", {"dim": 32, "num_heads": 4}, (tokens(),)),
    ("models.beit.Attention", {"dim": 32, "qkv_bias": True}, (tokens(),)),
    ("models.cait.TalkingHeadAttn", {"dim": 32}, (tokens(),)),
    ("models.coat.FactorAttnConvRelPosEnc", {"dim": 32, "shared_crpe": lambda q, v, size: 0}, (tokens(), (4, 4))),
    ("models.convit.MHSA", {"dim": 32}, (tokens(),)),
    ("models.csatv2.SpatialTransformerBlock", {}, (image(2, 1, 4, 4),)),
    ("models.davit.ChannelAttention", {"dim": 32}, (tokens(),)),
    ("models.davit.ChannelAttentionV2", {"dim": 32}, (tokens(),)),
    ("models.davit.WindowAttention", {"dim": 32, "window_size": (4, 4), "num_heads": 4}, (tokens(),)),
    ("models.edgenext.CrossCovarianceAttn", {"dim": 32}, (tokens(),)),
    ("models.eva.EvaAttention", {"dim": 32, "norm_layer": nn.LayerNorm}, (tokens(),)),
    ("models.fastvit.Attention", {"dim": 32, "head_dim": 8}, (image(),)),
    ("models.hiera.MaskUnitAttention", {"dim": 32, "dim_out": 64, "heads": 4}, (tokens(),)),
    ("models.hieradet_sam2.MultiScaleAttention", {"dim": 32, "dim_out": 64, "num_heads": 4}, (tokens(2, 4, 4, 32),)),
    ("models.metaformer.Attention", {"dim": 32, "head_dim": 8}, (tokens(),)),
    (
        "models.mvitv2.MultiScaleAttention",
        {"dim": 32, "dim_out": 64, "feat_size": (4, 4), "has_cls_token": False},
        (tokens(), (4, 4)),
    ),
    ("models.nest.Attention", {"dim": 32}, (tokens(2, 4, 4, 32),)),
    ("models.swin_transformer.WindowAttention", {"dim": 32, "num_heads": 4, "window_size": 4}, (tokens(),)),
    ("models.swin_transformer_v2.WindowAttention", {"dim": 32, "num_heads": 4, "window_size": (4, 4)}, (tokens(),)),
    (
        "models.swin_transformer_v2_cr.WindowMultiHeadAttention",
        {"dim": 32, "num_heads": 4, "window_size": (4, 4)},
        (tokens(),),
    ),
    ("models.twins.LocallyGroupedAttn", {"dim": 32, "ws": 2}, (tokens(), (4, 4))),
    ("models.visformer.Attention", {"dim": 32}, (image(),)),
    ("models.vision_transformer_relpos.RelPosAttention", {"dim": 32}, (tokens(),)),
    ("models.vision_transformer_sam.Attention", {"dim": 32}, (tokens(2, 4, 4, 32),)),
    ("models.volo.Attention", {"dim": 32}, (tokens(2, 4, 4, 32),)),
    ("models.xcit.XCA", {"dim": 32}, (tokens(),)),
    ("layers.attention_pool.AttentionPoolLatent", {"in_features": 32}, (tokens(),), "kv"),
    ("models.pvt_v2.Attention", {"dim": 32}, (tokens(), (4, 4)), "kv"),
    ("models.twins.GlobalSubSampleAttn", {"dim": 32, "sr_ratio": 2}, (tokens(), (4, 4)), "kv"),
    ("models.volo.ClassAttention", {"dim": 32}, (tokens(),), "kv"),
    ("models.convit.GPSA", {"dim": 32}, (tokens(),), "qk"),
    ("models.tnt.Attention", {"dim": 32, "hidden_dim": 32}, (tokens(),), "qk"),
    (
        "models.gcvit.WindowAttentionGlobal",
        {"dim": 32, "num_heads": 4, "window_size": (4, 4)},
        (tokens(), tokens(1, 16, 32)),
        "kv",
    ),
    (
        "models.gcvit.WindowAttentionGlobal",
        {"dim": 32, "num_heads": 4, "window_size": (4, 4), "use_global": False},
        (tokens(),),
    ),
    *(
        (path, {"dim": 32, heads: 8, "head_first": head_first}, (x,))
        for head_first in (True, False)
        for path, heads, x in (
            ("layers.attention2d.Attention2d", "num_heads", image()),
            ("models.maxxvit.Attention2d", "dim_head", image()),
            ("models.maxxvit.AttentionCl", "dim_head", tokens()),
        )
    ),
    *(
        (f"models.{file}.ConvAttention", {"input_dim": channels, "att_stride": 1}, (image(2, channels, 4, 4),))
        for file in ("cpubone", "lowformer")
        for channels in (64, 128)  # of one and of two heads
    ),
    ("models.maxxvit.AttentionCl", {"dim": 32, "dim_head": 32, "head_first": True}, (tokens(),)),
    ("models.efficientformer.Attention", {"dim": 32, "key_dim": 8, "num_heads": 4, "resolution": 4}, (tokens(),)),
    ("models.efficientvit_mit.LiteMLA", {"in_channels": 32, "out_channels": 32}, (image(),)),
    ("models.levit.Attention", {"dim": 32, "key_dim": 8, "resolution": 4}, (tokens(),)),
    ("models.levit.Attention", {"dim": 32, "key_dim": 8, "resolution": 4, "use_conv": True}, (image(),)),
    ("models.tiny_vit.Attention", {"dim": 32, "key_dim": 8, "num_heads": 4, "resolution": (4, 4)}, (tokens(),)),
    ("layers.halo_attn.HaloAttn", {"dim": 32, "num_heads": 4, "block_size": 2, "halo_size": 1}, (image(),), "kv"),
    (
        "models.levit.AttentionDownsample",
        {"in_dim": 32, "out_dim": 32, "key_dim": 8, "resolution": 4},
        (tokens(),),
        "kv",
    ),
    ("layers.bottleneck_attn.BottleneckAttn", {"dim": 32, "feat_size": (4, 4)}, (image(),)),
    ("layers.bottleneck_attn.BottleneckAttn", {"dim": 32, "feat_size": (4, 4), "qk_ratio": 0.5}, (image(),)),
    ("layers.lambda_layer.LambdaLayer", {"dim": 32}, (image(),)),
    ("models.shvit.SHSA", {"dim": 32, "qk_dim": 8, "pdim": 12}, (image(),)),
    (
        "models.efficientvit_msra.CascadedGroupAttention",
        {"dim": 32, "key_dim": 8, "num_heads": 2, "attn_ratio": 2, "resolution": 4},
        (image(),),
    ),
    ("models.mobilevit.LinearSelfAttention", {"embed_dim": 32}, (image(),)),
    ("models.vision_transformer.ParallelScalingBlock", {"dim": 32, "num_heads": 4}, (tokens(),)),
    ("models.vision_transformer.DiffParallelScalingBlock", {"dim": 32, "num_heads": 4}, (tokens(),)),
]


@pytest.mark.parametrize("case", TIMM, ids=lambda case: case[0])
def test_timm(case):
    pytest.importorskip("timm")
    path, arguments, inputs, roles = (*case, "qkv")[:4]
    check(class_of(f"timm.{path}")(**arguments), *inputs, roles=roles)


def test_torch():
    x = tokens()
    assert check(nn.MultiheadAttention(32, 4, batch_first=True), x, x, x) == {"in_proj_weight": 3}
    assert fused_projections(nn.MultiheadAttention(32, 4, kdim=8)) == {}
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), num_layers=2, enable_nested_tensor=False)
    assert fused_projections(encoder) == {f"layers.{i}.self_attn.in_proj_weight": 3 for i in range(2)}


TORCHVISION = [
    ("maxvit.RelativePositionalMultiHeadAttention", (32, 8, 16), (tokens(2, 3, 16, 32),)),
    ("swin_transformer.ShiftedWindowAttention", (32, [2, 2], [1, 1], 4), (tokens(2, 4, 4, 32),)),
    ("swin_transformer.ShiftedWindowAttentionV2", (32, [2, 2], [1, 1], 4), (tokens(2, 4, 4, 32),)),
    ("video.swin_transformer.ShiftedWindowAttention3d", (32, [2, 2, 2], [1, 1, 1], 4), (tokens(2, 2, 4, 4, 32),)),
    (
        "video.mvit.MultiscaleAttention",
        ([1, 4, 4], 32, 64, 4, [1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1], False, False, False),
        (tokens(2, 17, 32), (1, 4, 4)),
    ),
]


@pytest.mark.parametrize("case", TORCHVISION, ids=lambda case: case[0])
def test_torchvision(case):
    pytest.importorskip("torchvision")
    path, arguments, inputs = case
    assert list(check(class_of(f"torchvision.models.{path}")(*arguments), *inputs).values()) == [3]


def test_lightly():
    pytest.importorskip("lightly")
    block = class_of("lightly.models.modules.world_model.predictor.PredictorBlock")
    module = block(hidden_dim=32, num_heads=4, mlp_ratio=2, dropout=0.0, conditional=False)
    assert check(module, tokens()) == {"qkv.weight": 3}
    assert listed("lightly") == {"predictor.PredictorBlock"}


@pytest.mark.parametrize(("library", "cases"), [("timm", TIMM), ("torchvision", TORCHVISION)])
def test_every_listed_class_is_compared(library, cases):
    compared = {".".join(case[0].split(".")[-2:]) for case in cases}
    compared.discard("swin_transformer.ShiftedWindowAttentionV2")  # counts as its base
    compared |= {"vision_transformer.Attention"} if library == "timm" else set()  # of earlier versions
    assert compared == listed(library)
