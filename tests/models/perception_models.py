"""Models of images, sound and of both with text, of `transformers`."""

import transformers
from architectures import BARE, EMBEDDING, RECURRENT, Architecture, arguments
from transformers_models import ENCODER_DECODER, TINY, base

VIT = {"image_size": 32, "patch_size": 16}
pixels = arguments(pixel_values=(2, 3, 32, 32))

WHISPER = {**ENCODER_DECODER, "num_mel_bins": 8, "max_source_positions": 10, "max_target_positions": 16}
WAV2VEC2 = {
    "conv_dim": (8, 8),
    "conv_kernel": (4, 3),
    "conv_stride": (2, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
MAE_DECODER = {
    "decoder_hidden_size": 8,
    "decoder_intermediate_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
}
SEGFORMER = {
    "num_encoder_blocks": 1,
    "depths": [1],
    "hidden_sizes": [16],
    "num_attention_heads": [2],
    "sr_ratios": [2],
    "patch_sizes": [4],
    "strides": [4],
}
PERCEIVER = {
    "num_latents": 4,
    "d_latents": 16,
    "d_model": 16,
    "num_blocks": 1,
    "num_self_attends_per_block": 1,
    "num_self_attention_heads": 2,
    "num_cross_attention_heads": 2,
}


def clip():
    towers = {"text_config": TINY, "vision_config": {**TINY, **VIT}}
    return transformers.CLIPModel(transformers.CLIPConfig(**towers, projection_dim=8))


def vit_mae():
    return transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**TINY, **VIT, **MAE_DECODER))


def detr():
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    return transformers.DetrModel(
        transformers.DetrConfig(
            use_timm_backbone=False, backbone=None, backbone_config=backbone, num_queries=4, **ENCODER_DECODER
        )
    )


ENCODEC = {
    "num_filters": 4,
    "hidden_size": 8,
    "codebook_size": 16,
    "codebook_dim": 8,
    "upsampling_ratios": [2, 2],
    "num_lstm_layers": 1,
    "target_bandwidths": [120.0],
}

PERCEPTION = [
    Architecture("dinov2", base("dinov2", **VIT), pixels),
    Architecture("dinov3", base("dinov3_vit", num_register_tokens=2, **VIT), pixels),
    Architecture("vit_mae", vit_mae, pixels),
    Architecture("segformer", base("segformer", **SEGFORMER), pixels),
    Architecture("detr", detr, pixels, {"query_position_embeddings.weight": EMBEDDING}),
    Architecture("clip", clip, arguments(input_ids=(2, 6), pixel_values=(2, 3, 32, 32))),
    Architecture(
        "perceiver", base("perceiver", **PERCEIVER), arguments(inputs=(2, 6, 16)), {"embeddings.latents": BARE}
    ),
    Architecture("wav2vec2", base("wav2vec2", **WAV2VEC2), arguments(input_values=(2, 200))),
    Architecture(
        "encodec", base("encodec", **ENCODEC), arguments(input_values=(1, 1, 64)), {"*.lstm.weight_*": RECURRENT}
    ),
    Architecture("whisper", base("whisper", **WHISPER), arguments(input_features=(2, 8, 20), decoder_input_ids=(2, 4))),
]
