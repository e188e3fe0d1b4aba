"""Architectures of timm."""

from functools import partial

import timm
from architectures import BARE, RECURRENT, VECTOR, Architecture, arguments
from timm.layers import GatedMlp
from timm.models import mlp_mixer


def small(name, **options):
    return partial(timm.create_model, name, **options)


def vit(name, **options):
    return small(name, **{"img_size": 32, "embed_dim": 16, "depth": 1, "num_heads": 2, **options})


def mixer(**options):
    return partial(mlp_mixer.MlpMixer, img_size=32, patch_size=16, num_blocks=1, embed_dim=16, **options)


image = arguments(x=(2, 3, 32, 32))
large = arguments(x=(2, 3, 64, 64))
full = arguments(x=(1, 3, 224, 224))

TIMM = [
    # Convolutional networks; those without batch norm standardize their weights and scale them by a gain.
    Architecture("resnetv2", small("resnetv2_50", layers=(1, 1, 1, 1)), image),
    Architecture("nfnet", small("nf_resnet26"), image, {"*.gain": VECTOR}),
    Architecture("res2net", small("res2net50_14w_8s", layers=(1, 1, 1, 1)), image),
    Architecture("resnest", small("resnest14d"), image),
    Architecture("repvgg", small("repvgg_a0"), image),
    Architecture("mobileone", small("mobileone_s0"), image),
    Architecture("mixnet", small("mixnet_s"), image),
    Architecture("ghostnet", small("ghostnet_050"), image),
    Architecture("convnext_v2", small("convnextv2_atto", depths=(1, 1, 1, 1), dims=(8, 16, 16, 16)), image),
    Architecture("condconv", small("tf_efficientnet_cc_b0_4e"), image, {"blocks.*.conv_*.weight": BARE}),
    # Convolutions and attention.
    Architecture("botnet", small("botnet26t_256", img_size=64), large, {"*.pos_embed.*_rel": BARE}),
    Architecture("lambda_resnet", small("lambda_resnet26t"), large),
    Architecture("mobilevit", small("mobilevit_xxs"), image),
    Architecture("mobilevitv2", small("mobilevitv2_050"), image),
    Architecture("mobilenetv4", small("mobilenetv4_hybrid_medium"), large),
    Architecture("edgenext", small("edgenext_xx_small"), large),
    Architecture("fastvit", small("fastvit_t8"), large),
    Architecture("levit", small("levit_128s"), full),
    Architecture("coatnet", small("coatnet_nano_rw_224", img_size=64), large),
    Architecture("poolformer", small("poolformer_s12"), large),
    # Vision transformers.
    Architecture("deit", vit("deit_tiny_distilled_patch16_224"), image),
    Architecture("deit3", vit("deit3_small_patch16_224"), image),
    Architecture("beit", vit("beit_base_patch16_224"), image),
    Architecture("eva02", vit("eva02_tiny_patch14_224", img_size=28), arguments(x=(2, 3, 28, 28))),
    Architecture("cait", vit("cait_xxs24_224"), image),
    Architecture("xcit", vit("xcit_nano_12_p16_224"), image),
    Architecture("convit", vit("convit_tiny"), image),
    Architecture("siglip", vit("vit_base_patch16_siglip_224"), image, {"attn_pool.latent": VECTOR}),
    Architecture("sam", vit("samvit_base_patch16_224"), image, {"blocks.0.attn.rel_pos_?": BARE}),
    Architecture("volo", small("volo_d1_224", img_size=64), large),
    Architecture("crossvit", small("crossvit_tiny_240"), arguments(x=(1, 3, 240, 240))),
    # Without attention.
    Architecture("mlp_mixer", mixer(), image),
    Architecture("resmlp", mixer(block_layer=mlp_mixer.ResBlock, norm_layer=mlp_mixer.Affine, mlp_ratio=2), image),
    Architecture("gmlp", mixer(block_layer=mlp_mixer.SpatialGatingBlock, mlp_layer=GatedMlp, mlp_ratio=2), image),
    Architecture("sequencer", small("sequencer2d_s", layers=(1, 1, 1, 1)), full, {"*.rnn_?.weight_?h_l0*": RECURRENT}),
]
