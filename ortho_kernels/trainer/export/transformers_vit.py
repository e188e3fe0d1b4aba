"""A plain ViT of timm as transformers' ViTModel (Dosovitskiy et al., ICLR 2021).

The weights have the names of the library's files on the Hub, which its versions 4 and 5 read.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .conversion import Conversion, NotConvertible, fill_plain, replaced

KIND = "ViT"
NAMES = [
    ("cls_token", "embeddings.cls_token"),
    ("pos_embed", "embeddings.position_embeddings"),
    ("patch_embed.proj.", "embeddings.patch_embeddings.projection."),
    ("blocks.", "encoder.layer."),
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    (".attn.proj.", ".attention.output.dense."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
]
QKV = ".attn.qkv."  # timm's weight of queries, keys and values in one


def is_vit(weights: dict[str, Tensor]) -> bool:
    """Whether the weights have the names of timm's VisionTransformer."""
    return {"patch_embed.proj.weight", f"blocks.0{QKV}weight"} <= weights.keys()


def convert_vit(network: Any, channels: int, size: int) -> Conversion:
    """Raises NotConvertible where transformers has no such ViT."""
    from timm.models import VisionTransformer  # takes its time, and only transformers need it

    if not isinstance(network, VisionTransformer):
        raise NotConvertible(f"{type(network).__name__} is no plain ViT, and transformers' ViT is")
    if network.global_pool != "token":
        raise NotConvertible(
            f"its features are pooled over the patches (global_pool={network.global_pool}), and those of transformers' "
            "ViT are the class token's"
        )
    weights = network.state_dict()
    first: Any = network.blocks[0]
    inner = weights["blocks.0.mlp.fc1.weight"].shape[0]
    config = {
        "architectures": ["ViTModel"],
        "model_type": "vit",
        "num_channels": channels,
        "image_size": size,
        "patch_size": network.patch_embed.patch_size[0],
        "hidden_size": network.embed_dim,
        "num_hidden_layers": len(network.blocks),
        "num_attention_heads": first.attn.num_heads,
        "intermediate_size": inner,
        "qkv_bias": f"blocks.0{QKV}bias" in weights,
        "hidden_act": "gelu",
        "layer_norm_eps": first.norm1.eps,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        # The pooler adds nothing: its output is the class token, which are the features.
        "pooler_act": "linear",
        "pooler_output_size": network.embed_dim,
    }
    with torch.device("meta"):
        plain = VisionTransformer(
            img_size=size,
            patch_size=config["patch_size"],
            in_chans=channels,
            num_classes=0,
            embed_dim=network.embed_dim,
            depth=len(network.blocks),
            num_heads=first.attn.num_heads,
            mlp_ratio=(inner + 0.5) / network.embed_dim,  # of which timm takes the integer part
            qkv_bias=config["qkv_bias"],
            norm_layer=partial(nn.LayerNorm, eps=first.norm1.eps),
        )
    fill_plain(plain, weights, KIND)
    return Conversion(KIND, network.embed_dim, config, _transformers_weights(weights, network.embed_dim), plain)


def _transformers_weights(weights: dict[str, Tensor], dim: int) -> dict[str, Tensor]:
    result = {"pooler.dense.weight": torch.eye(dim), "pooler.dense.bias": torch.zeros(dim)}
    for name, weight in weights.items():
        if QKV in name:
            for part, rows in zip(("query", "key", "value"), weight.chunk(3), strict=True):
                result[replaced(name, [(QKV, f".attention.attention.{part}."), *NAMES])] = rows.contiguous()
        elif name.startswith("norm."):
            result[f"layer{name}"] = weight
        else:
            result[replaced(name, NAMES)] = weight
    return result
