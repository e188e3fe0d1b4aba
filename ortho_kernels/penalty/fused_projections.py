"""Which weights fuse the query, key and value projections of attention, and whether they can be cut apart.

A fused projection computes q, k and v by one weight. Where its output is q, k and v one after the other, the weight is
three matrices, one above the other. Other models interleave them by head, or share k and v among heads, and a weight
does not show which. So the classes of torch, torchvision, timm, lightly and transformers are listed here, with the cut
of their own `forward`. They are recognized by name, and a subclass counts as its base class does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from torch import nn
from torch.nn.modules.conv import _ConvNd

from .computed_weights import computed_weights
from .experts import known_batch
from .known_classes import class_names
from .weight_sites import is_transposed_linear

Cut = int | str | Callable[[Any], int | str]  # equal matrices, or why it is not cut, or either by the module's options

_BY_HEAD = "interleaves q, k and v by head"
_PAIR_BY_HEAD = "interleaves k and v by head"


def fused_projections(encoder: nn.Module) -> dict[str, int | str]:
    """The fused projections of an encoder's attention: into how many equal matrices each can be cut.

    Returns:
        For the name of each fused weight, as in `"blocks.0.attn.qkv.weight"`, the number of equal matrices: 3, or 2 where
        two of q, k and v are fused. They lie one after the other along the output: the rows of a weight, or the columns
        in a `Conv1D` of transformers. Where the weight can't be cut so, a clause says why, to follow the name.
    """
    return fused_weights(encoder, QKV)


class Fusion(NamedTuple):
    """A kind of projections that models fuse.

    Attributes:
        parts: what one weight holds.
        cut: the number of these.
        option: the argument that cuts it.
        known_cut: the cut of a module's attribute; None where the class is not known.
        name: an attribute that it matches is taken for such a weight in a class that is not known.
    """

    parts: str
    cut: int
    option: str
    known_cut: Callable[[nn.Module, str], int | str | None]
    name: re.Pattern[str]


def fused_weights(encoder: nn.Module, fusion: Fusion) -> dict[str, int | str]:
    """As `fused_projections`, of any kind."""
    paths = {module: path for path, module in encoder.named_modules()}
    found: dict[str, int | str] = {}
    for owner in paths:
        for attribute, layers in projections(owner):
            cut = fusion.known_cut(owner, attribute)
            for layer, parameter in layers:
                name = f"{paths[layer]}.{parameter}".lstrip(".")
                if cut is not None:
                    found[name] = cut
                elif len(layers) == 1 and fusion.name.search(attribute):
                    found[name] = _unknown(owner, attribute, paths[layer], fusion)
    return found


def projections(owner: nn.Module) -> Iterator[tuple[str, list[tuple[nn.Module, str]]]]:
    """The attributes of a module, each with the weights in it as (module, parameter)."""
    for attribute, held in {**owner._parameters, **computed_weights(owner)}.items():
        if held is not None:
            yield attribute, [(owner, attribute)]
    for attribute, child in owner.named_children():
        yield attribute, [(layer, "weight") for layer in _layers(child)]


def _layers(module: nn.Module) -> list[nn.Module]:
    """The linear and conv layers in a module, without what an adapter (LoRA) adds to them."""
    if _is_layer(module):
        return [module]
    base = getattr(module, "base_layer", None)
    children = module.children() if base is None else [base]
    return [layer for child in children for layer in _layers(child)]


def _is_layer(module: nn.Module) -> bool:
    return (
        isinstance(module, (_ConvNd, nn.Linear))
        or is_transposed_linear(module)
        or known_batch(module, "weight") is not None
    )


def listed_cut(table: dict[str, Cut], owner: nn.Module, attribute: str) -> int | str | None:
    """The cut of the nearest class that is listed with this attribute; None where there is none."""
    for name in class_names(owner):
        if (key := f"{name}.{attribute}") in table:
            cut = table[key]
            return cut(owner) if callable(cut) else cut
    return None


class UnknownCut(str):
    """Why a weight whose class is not listed is not cut, unless the user declares what it is."""


def _unknown(owner: nn.Module, attribute: str, layer: str, fusion: Fusion) -> UnknownCut:
    parts = layer.split(".")
    pattern = layer if len(parts) < 3 else f"*.{'.'.join(parts[-2:])}"
    return UnknownCut(
        f"is {attribute} of {type(owner).__name__}, whose cut is unknown; if its output is {fusion.parts} one after the "
        f'other, declare so by {fusion.option}="{pattern}"'
    )


def _sizes(*sizes: int) -> int | str:
    """The cut of q, k and v of these rows, one after the other."""
    q, k, v = sizes
    if q == k == v:
        return 3
    if k == v:
        return f"is unequal: its q has {q} row{'s' * (q > 1)}, its k and v {k} each"
    if q == k:
        return f"is unequal: its q and k have {q} rows each, its v {v}"
    return f"is unequal: its q has {q} rows, its k {k}, its v {v}"


def _several_heads(m: Any) -> int | str:
    return _BY_HEAD if m.num_heads > 1 else 3


def _head_first(m: Any) -> int | str:
    return _several_heads(m) if m.head_first else 3


def _gpt2(m: Any) -> int:
    return 2 if m.is_cross_attention else 3


def _gpt_bigcode(m: Any) -> int | str:
    if m.is_cross_attention:
        return "fuses k and v, and its forward splits fewer rows than it has"
    return _sizes(m.embed_dim, m.kv_dim, m.kv_dim) if m.multi_query else _BY_HEAD


def _falcon(m: Any) -> int | str:
    if m.new_decoder_architecture or not m.multi_query:
        return _BY_HEAD
    return _sizes(m.hidden_size, m.head_dim, m.head_dim)


def _grouped_query(m: Any) -> int | str:
    shared = m.num_key_value_heads * m.head_dim
    return _sizes(m.config.num_attention_heads * m.head_dim, shared, shared)


def _gated_delta(m: Any) -> int | str:
    return _sizes(m.key_dim, m.key_dim, m.value_dim)


def _one_row_query(m: Any) -> int | str:
    return _sizes(1, m.embed_dim, m.embed_dim)


# (the cut, the library, the attribute, the classes as FILE.CLASS)
_TABLE: tuple[tuple[Cut, str, str, str], ...] = (
    (3, "torch", "in_proj_weight", "activation.MultiheadAttention"),
    (3, "torchvision", "to_qkv", "maxvit.RelativePositionalMultiHeadAttention"),
    (
        3,
        "torchvision",
        "qkv",
        "swin_transformer.ShiftedWindowAttention swin_transformer.ShiftedWindowAttention3d mvit.MultiscaleAttention",
    ),
    (3, "lightly", "qkv", "predictor.PredictorBlock"),
    (
        3,
        "timm",
        "qkv",  # vision_transformer.Attention is attention.Attention of earlier versions
        """attention.Attention vision_transformer.Attention attention.AttentionRope attention_pool2d.AttentionPool2d
        attention_pool2d.RotAttentionPool2d diff_attention.DiffAttention beit.Attention cait.TalkingHeadAttn
        coat.FactorAttnConvRelPosEnc convit.MHSA csatv2.SpatialTransformerBlock davit.ChannelAttention
        davit.ChannelAttentionV2 davit.WindowAttention edgenext.CrossCovarianceAttn eva.EvaAttention fastvit.Attention
        hiera.MaskUnitAttention hieradet_sam2.MultiScaleAttention metaformer.Attention mvitv2.MultiScaleAttention
        nest.Attention swin_transformer.WindowAttention swin_transformer_v2.WindowAttention
        swin_transformer_v2_cr.WindowMultiHeadAttention twins.LocallyGroupedAttn visformer.Attention
        vision_transformer_relpos.RelPosAttention vision_transformer_sam.Attention volo.Attention xcit.XCA""",
    ),
    (
        2,
        "timm",
        "kv",
        "attention_pool.AttentionPoolLatent pvt_v2.Attention twins.GlobalSubSampleAttn volo.ClassAttention",
    ),
    (2, "timm", "qk", "convit.GPSA tnt.Attention"),
    (lambda m: 2 if m.use_global else 3, "timm", "qkv", "gcvit.WindowAttentionGlobal"),
    (_head_first, "timm", "qkv", "attention2d.Attention2d maxxvit.Attention2d maxxvit.AttentionCl"),
    (_several_heads, "timm", "pwise", "cpubone.ConvAttention lowformer.ConvAttention"),
    (_BY_HEAD, "timm", "qkv", "efficientformer.Attention efficientvit_mit.LiteMLA levit.Attention tiny_vit.Attention"),
    (_PAIR_BY_HEAD, "timm", "kv", "halo_attn.HaloAttn levit.AttentionDownsample"),
    (
        lambda m: _sizes(m.dim_out_qk, m.dim_out_qk, m.dim_out_v),
        "timm",
        "qkv",
        "bottleneck_attn.BottleneckAttn",
    ),
    (lambda m: _sizes(m.num_heads * m.dim_qk, m.dim_qk, m.dim_v), "timm", "qkv", "lambda_layer.LambdaLayer"),
    (lambda m: _sizes(m.qk_dim, m.qk_dim, m.pdim), "timm", "qkv", "shvit.SHSA"),
    (
        lambda m: _sizes(m.key_dim, m.key_dim, m.val_dim),
        "timm",
        "qkvs",  # a list, one layer a head
        "efficientvit_msra.CascadedGroupAttention",
    ),
    (_one_row_query, "timm", "qkv_proj", "mobilevit.LinearSelfAttention"),
    (
        "holds the first layer of the MLP too",
        "timm",
        "in_proj",
        "vision_transformer.ParallelScalingBlock vision_transformer.DiffParallelScalingBlock",
    ),
    (
        3,
        "transformers",
        "qkv",
        """blip.BlipAttention blip_2.Blip2Attention cohere_compass.CohereCompassVisionAttention
        deepseek_ocr2.DeepseekOcr2SamVisionAttention dots3_note.Dots3NoteVisionAttention
        ernie4_5_vl_moe.Ernie4_5_VLMoeVisionAttention florence2.Florence2VisionChannelAttention
        florence2.Florence2VisionWindowAttention glm4v.Glm4vVisionAttention glm4v_moe.Glm4vMoeVisionAttention
        glm5_next.Glm5NextVisionAttention glm_image.GlmImageVisionAttention glm_ocr.GlmOcrVisionAttention
        got_ocr2.GotOcr2VisionAttention hiera.HieraMaskUnitAttention instructblip.InstructBlipAttention
        instructblipvideo.InstructBlipVideoAttention mgp_str.MgpstrAttention pp_formulanet.PPFormulaNetVisionAttention
        pp_ocrv5_mobile_rec.PPOCRV5MobileRecAttention pp_ocrv5_server_rec.PPOCRV5ServerRecAttention
        pp_ocrv6_small_rec.PPOCRV6SmallRecAttention qwen2_5_vl.Qwen2_5_VLVisionAttention qwen2_vl.VisionAttention
        qwen3_5.Qwen3_5VisionAttention qwen3_5_moe.Qwen3_5MoeVisionAttention qwen3_omni_moe.Qwen3OmniMoeVisionAttention
        qwen3_vl.Qwen3VLVisionAttention qwen3_vl_moe.Qwen3VLMoeVisionAttention qwen4_exp.Qwen4ExpVisionAttention
        sam.SamVisionAttention sam2.Sam2MultiScaleAttention sam_hq.SamHQVisionAttention seggpt.SegGptAttention
        slanext.SLANeXtVisionAttention timesformer.TimesformerSelfAttention
        unlimited_ocr.UnlimitedOcrSamVisionAttention vitdet.VitDetAttention""",
    ),
    (3, "transformers", "Wqkv", "modernbert.ModernBertAttention mpt.MptAttention"),
    (3, "transformers", "qkv_linear", "layoutlmv2.LayoutLMv2SelfAttention"),
    (3, "transformers", "c_attn", "openai.Attention"),
    (3, "transformers", "att_proj", "bark.BarkSelfAttention"),
    (
        _gpt2,
        "transformers",
        "c_attn",
        "gpt2.GPT2Attention decision_transformer.DecisionTransformerGPT2Attention imagegpt.ImageGPTAttention",
    ),
    (
        2,
        "transformers",
        "to_kv",
        """evolla.EvollaSequenceCompressorAttention granite_speech.GraniteSpeechConformerAttention
        granite_speech_plus.GraniteSpeechPlusConformerAttention""",
    ),
    (2, "transformers", "kv_proj", "jetmoe.JetMoeAttention"),
    (
        _BY_HEAD,
        "transformers",
        "query_key_value",
        """bloom.BloomAttention gpt_neox.GPTNeoXAttention gpt_neox_japanese.GPTNeoXJapaneseAttention
        persimmon.PersimmonAttention""",
    ),
    (_BY_HEAD, "transformers", "in_proj", "deberta.DisentangledSelfAttention"),
    (_BY_HEAD, "transformers", "qkv_proj", "minimax.MiniMaxLightningAttention"),
    (_BY_HEAD, "transformers", "queries_keys_values", "levit.LevitAttention"),
    (_BY_HEAD, "transformers", "proj", "esmfold.EsmFoldSelfAttention"),
    (_PAIR_BY_HEAD, "transformers", "keys_values", "levit.LevitAttentionSubsample"),
    (_PAIR_BY_HEAD, "transformers", "linear_kv", "esmfold.EsmFoldInvariantPointAttention"),
    (
        "interleaves q, v and k by the four shards of its training",
        "transformers",
        "qkv_proj",
        "codegen.CodeGenAttention",
    ),
    (_gpt_bigcode, "transformers", "c_attn", "gpt_bigcode.GPTBigCodeAttention"),
    (_falcon, "transformers", "query_key_value", "falcon.FalconAttention"),
    (_grouped_query, "transformers", "qkv_proj", "phi3.Phi3Attention phi4_multimodal.Phi4MultimodalAttention"),
    (
        lambda m: _sizes(m.hidden_size, *(m.num_key_value_heads * m.head_dim,) * 2),
        "transformers",
        "Wqkv",
        "dbrx.DbrxAttention",
    ),
    (lambda m: _sizes(m.q_dim, m.kv_dim, m.kv_dim), "transformers", "qkv", "exaone4_5.Exaone4_5_VisionAttention"),
    (_one_row_query, "transformers", "qkv_proj", "mobilevitv2.MobileViTV2LinearSelfAttention"),
    (
        _gated_delta,
        "transformers",
        "in_proj_qkv",
        """lara_mini.LaraMiniGatedDeltaNet qwen3_5.Qwen3_5GatedDeltaNet qwen3_5_moe.Qwen3_5MoeGatedDeltaNet
        qwen4_exp.Qwen4ExpTextGatedDeltaNet""",
    ),
    (
        "interleaves q, k, v and the output gate by head",
        "transformers",
        "in_proj_qkvz",
        "qwen3_next.Qwen3NextGatedDeltaNet",
    ),
    ("holds the output gate too", "transformers", "qkv_opreact", "xlstm.xLSTMLayer"),
)

KNOWN: dict[str, Cut] = {
    f"{library}.{name}.{attribute}": cut for cut, library, attribute, names in _TABLE for name in names.split()
}

QKV = Fusion(
    "q, k and v",
    3,
    "split_qkv",
    partial(listed_cut, KNOWN),
    re.compile(r"qkv|^query_key_value$|^c_attn$", re.IGNORECASE),
)
