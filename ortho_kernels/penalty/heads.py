"""How the projections of attention are cut by heads: into blocks of rows of one size, each the q, k or v of one head.

Heads stand one after the other along the output. So blocks of a head's size are right where q, k and v follow each other,
where k and v have fewer heads (grouped queries), and where q, k and v are interleaved by head. The size of a head is an
attribute of its module. Output projections are not cut: there, the heads are columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from .fused_projections import KNOWN, QKV, UnknownCut, fused_weights, listed_cut, projections
from .known_classes import class_names
from .weight_sites import is_transposed_linear

_TRIPLES = (
    ("q_proj", "k_proj", "v_proj"),
    ("query", "key", "value"),
    ("q", "k", "v"),
    ("query_proj", "key_proj", "value_proj"),
    ("q_lin", "k_lin", "v_lin"),
    ("linear_q", "linear_k", "linear_v"),
    ("to_q", "to_k", "to_v"),
)
_SIZES = ("head_dim", "dim_head", "attention_head_size", "key_value_proj_dim", "head_size")
_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads", "groups")


def head_rows(encoder: nn.Module) -> dict[str, int | str]:
    """The projections to q, k and v in an encoder's attention: how many rows a head has in each.

    Returns:
        The number of rows, by the name of the weight. Where heads are no blocks of one size, or are not known, a clause
        says why, to follow the name. A few classes put a gate behind each head's q; it is a block of its own.
    """
    paths = {module: path for path, module in encoder.named_modules()}
    found = {name: cut for name, cut in fused_weights(encoder, QKV).items() if isinstance(cut, UnknownCut)}
    known: dict[str, int | str] = {}
    for owner in paths:
        for attribute, layers in projections(owner):
            for layer, parameter in layers:
                rows = _rows(owner, attribute, layer, parameter)
                if rows is not None:
                    known[f"{paths[layer]}.{parameter}".lstrip(".")] = rows
    return {**found, **known}


def _rows(owner: nn.Module, attribute: str, layer: nn.Module, parameter: str) -> int | str | None:
    """The rows of a head in one weight; None where it is no projection that is known."""
    cut = listed_cut(KNOWN, owner, attribute)
    if cut is None and not _is_separate(owner, attribute):
        return None
    for name in class_names(owner):
        if (unusual := _UNUSUAL.get(f"{name}.{attribute}")) is not None:
            return unusual(owner) or (cut if isinstance(cut, str) else "has heads of two sizes")
    if isinstance(cut, str):
        return cut
    size, count = _noted(owner, _SIZES), _noted(owner, _COUNTS)
    if size is None and count is not None:
        outputs = getattr(layer, parameter).shape[is_transposed_linear(layer)]
        size = outputs // ((cut or 1) * count)
    if size is None and cut is not None:
        return f"belongs to {type(owner).__name__}, whose heads are not known"
    return size


def _noted(owner: nn.Module, names: tuple[str, ...]) -> int | None:
    values = (getattr(owner, name, None) for name in names)
    return next((value for value in values if isinstance(value, int)), None)


def _is_separate(owner: nn.Module, attribute: str) -> bool:
    """Whether this is the projection to q, k or v alone, in a class whose heads are blocks of its rows."""
    if isinstance(owner, nn.MultiheadAttention):
        return attribute in ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    triple = next((triple for triple in _TRIPLES if attribute in triple), None)
    if triple is None:
        return False
    names = list(class_names(owner))
    if any(name.startswith("transformers.") and "Attention" in name for name in names):
        return all(hasattr(owner, one) for one in triple) and "transformers.aria.AriaCrossAttention" not in names
    return any(name in _WITH_SEPARATE for name in names)


# timm has one projection beside a fused one (q and kv), or three in its place.
_WITH_SEPARATE = {"timm.cait.ClassAttn"} | {
    name for name in (key.rpartition(".")[0] for key in KNOWN) if name.startswith("timm.")
}


def _equal(*names: str) -> Callable[[Any], int | None]:
    """The size of a head, if those of q, k and v are the same."""

    def size(owner: Any) -> int | None:
        sizes = {getattr(owner, name) for name in names}
        return sizes.pop() if len(sizes) == 1 else None

    return size


# Where the attributes mean something else, or q, k and v are no equal thirds.
_TABLE: tuple[tuple[Callable[[Any], int | None], str], ...] = (
    (
        _equal("head_dim"),
        """timm.cpubone.ConvAttention.pwise timm.lowformer.ConvAttention.pwise
        transformers.bloom.BloomAttention.query_key_value transformers.codegen.CodeGenAttention.qkv_proj
        transformers.dbrx.DbrxAttention.Wqkv transformers.exaone4_5.Exaone4_5_VisionAttention.qkv
        transformers.falcon.FalconAttention.query_key_value transformers.gpt_bigcode.GPTBigCodeAttention.c_attn
        transformers.minimax.MiniMaxLightningAttention.qkv_proj transformers.persimmon.PersimmonAttention.query_key_value
        transformers.phi3.Phi3Attention.qkv_proj transformers.phi4_multimodal.Phi4MultimodalAttention.qkv_proj""",
    ),
    (
        _equal("dim_head"),
        "timm.attention2d.Attention2d.qkv timm.maxxvit.Attention2d.qkv timm.maxxvit.AttentionCl.qkv",
    ),
    (
        _equal("head_size"),
        """transformers.gpt_neox.GPTNeoXAttention.query_key_value
        transformers.gpt_neox_japanese.GPTNeoXJapaneseAttention.query_key_value""",
    ),
    (_equal("attention_head_size"), "transformers.deberta.DisentangledSelfAttention.in_proj"),
    (_equal("dim"), "timm.efficientvit_mit.LiteMLA.qkv"),
    (lambda m: 2 * m.head_dim, "timm.diff_attention.DiffAttention.qkv"),
    (lambda m: 1, "timm.csatv2.SpatialTransformerBlock.qkv"),
    (_equal("key_dim", "val_dim"), "timm.efficientvit_msra.CascadedGroupAttention.qkvs"),
    (_equal("dim_qk", "dim_v"), "timm.lambda_layer.LambdaLayer.qkv"),
    (_equal("qk_dim", "pdim"), "timm.shvit.SHSA.qkv"),
    (_equal("dim_head_qk", "dim_head_v"), "timm.bottleneck_attn.BottleneckAttn.qkv"),
    (
        _equal("head_k_dim", "head_v_dim"),
        """transformers.lara_mini.LaraMiniGatedDeltaNet.in_proj_qkv transformers.qwen3_5.Qwen3_5GatedDeltaNet.in_proj_qkv
        transformers.qwen3_5_moe.Qwen3_5MoeGatedDeltaNet.in_proj_qkv
        transformers.qwen4_exp.Qwen4ExpTextGatedDeltaNet.in_proj_qkv""",
    ),
)
_UNUSUAL = {key: size for size, keys in _TABLE for key in keys.split()}
