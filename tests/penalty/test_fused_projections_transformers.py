"""The listed classes of transformers, each compared with what its own `forward` calls q, k and v."""

import inspect
import itertools
from dataclasses import dataclass, field

import pytest
import torch
from forward_rows import check, class_of, listed, tokens

from ortho_kernels import OrthogonalityPenalty
from ortho_kernels.penalty.fused_projections import fused_projections

pytest.importorskip("transformers")
import transformers
from transformers.models.esm.openfold_utils import Rigid

TOKENS, IMAGE, PATCHES = tokens(), tokens(2, 4, 4, 32), tokens(16, 32)
ROTATION = torch.ones(1, 16, 8), torch.zeros(1, 16, 8)
DECODER = {"position_embeddings": ROTATION, "attention_mask": None}
UNMASKED = {**DECODER, "alibi": None, "attention_mask": torch.zeros(1)}
PACKED = {
    "cu_seqlens": torch.tensor([0, 16], dtype=torch.int32),
    "position_embeddings": (ROTATION[0][0], ROTATION[1][0]),
}


@dataclass
class Case:
    name: str  # FILE.CLASS
    config: str = "PreTrainedConfig"
    options: dict = field(default_factory=dict)  # of the configuration, beside 4 heads of 8 channels
    arguments: dict = field(default_factory=dict)  # of the class, beside the configuration
    x: torch.Tensor = field(default_factory=tokens)
    inputs: dict = field(default_factory=dict)  # of forward, beside x
    roles: str = "qkv"


def several(names, *values, **named):
    return [Case(name, *values, **named) for name in names.split()]


QWEN_LIKE = {"num_heads": 4, "num_key_value_heads": 4, "attention_bias": True, "attention_dropout": 0.0}
QWEN_LIKE |= {"embed_dim": 32, "rms_norm_eps": 1e-6}
BLIP_LIKE = {"qkv_bias": True, "attention_dropout": 0.0}
SAM_LIKE = {**BLIP_LIKE, "image_size": 64, "patch_size": 16, "use_rel_pos": False}
FLORENCE = {"embed_dim": [32], "num_groups": [4], "num_heads": [4], "window_size": 4, "qkv_bias": True}
SPEECH = {"hidden_dim": 32, "num_heads": 4, "dim_head": 8, "context_size": 16, "max_pos_emb": 16}
DISTANCES = {"attention_dists": torch.zeros(16, 16, dtype=torch.long)}
POINTS = {
    "sequence_dim": 32,
    "pairwise_dim": 8,
    "ipa_dim": 8,
    "num_heads_ipa": 4,
    "num_qk_points": 2,
    "num_v_points": 2,
}
POINTS |= {"inf": 1e5, "epsilon": 1e-8}
GATED = {"linear_num_key_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
LAYER = {"layer_idx": 0}
LEVIT = {"key_dim": 8, "num_attention_heads": 4}

CASES = [
    *several(
        """cohere_compass.CohereCompassVisionAttention dots3_note.Dots3NoteVisionAttention
        ernie4_5_vl_moe.Ernie4_5_VLMoeVisionAttention glm4v.Glm4vVisionAttention glm4v_moe.Glm4vMoeVisionAttention
        glm5_next.Glm5NextVisionAttention glm_image.GlmImageVisionAttention glm_ocr.GlmOcrVisionAttention
        qwen2_5_vl.Qwen2_5_VLVisionAttention qwen2_vl.VisionAttention qwen3_5.Qwen3_5VisionAttention
        qwen3_5_moe.Qwen3_5MoeVisionAttention qwen3_omni_moe.Qwen3OmniMoeVisionAttention qwen3_vl.Qwen3VLVisionAttention
        qwen3_vl_moe.Qwen3VLMoeVisionAttention qwen4_exp.Qwen4ExpVisionAttention exaone4_5.Exaone4_5_VisionAttention""",
        options=QWEN_LIKE,
        x=PATCHES,
        inputs=PACKED,
    ),
    Case(
        "exaone4_5.Exaone4_5_VisionAttention", options={**QWEN_LIKE, "num_key_value_heads": 2}, x=PATCHES, inputs=PACKED
    ),
    *several(
        """deepseek_ocr2.DeepseekOcr2SamVisionAttention got_ocr2.GotOcr2VisionAttention sam.SamVisionAttention
        pp_formulanet.PPFormulaNetVisionAttention sam_hq.SamHQVisionAttention slanext.SLANeXtVisionAttention
        unlimited_ocr.UnlimitedOcrSamVisionAttention""",
        options=SAM_LIKE,
        arguments={"window_size": 0},
        x=IMAGE,
    ),
    *several(
        "seggpt.SegGptAttention vitdet.VitDetAttention",
        options={**SAM_LIKE, "use_relative_position_embeddings": False},
        x=IMAGE,
    ),
    Case("sam2.Sam2MultiScaleAttention", arguments={"dim": 32, "dim_out": 64, "num_attention_heads": 4}, x=IMAGE),
    Case("hiera.HieraMaskUnitAttention", arguments={"hidden_size": 32, "hidden_size_output": 64, "num_heads": 4}),
    Case("florence2.Florence2VisionWindowAttention", options=FLORENCE, arguments={"stage_idx": 0}, x=IMAGE),
    Case("florence2.Florence2VisionChannelAttention", options=FLORENCE, arguments={"stage_idx": 0}),
    *several(
        """pp_ocrv5_mobile_rec.PPOCRV5MobileRecAttention pp_ocrv5_server_rec.PPOCRV5ServerRecAttention
        pp_ocrv6_small_rec.PPOCRV6SmallRecAttention""",
        options=BLIP_LIKE,
    ),
    Case("blip.BlipAttention", "BlipVisionConfig"),
    Case("blip_2.Blip2Attention", "Blip2VisionConfig"),
    Case("instructblip.InstructBlipAttention", "InstructBlipVisionConfig"),
    Case("instructblipvideo.InstructBlipVideoAttention", "InstructBlipVideoVisionConfig"),
    Case("mgp_str.MgpstrAttention", "MgpstrConfig"),
    Case("timesformer.TimesformerSelfAttention", "TimesformerConfig"),
    Case("modernbert.ModernBertAttention", "ModernBertConfig", arguments=LAYER, inputs=DECODER),
    Case("mpt.MptAttention", "MptConfig", arguments=LAYER, inputs={"position_bias": torch.zeros(4, 1, 16)}),
    Case(
        "layoutlmv2.LayoutLMv2SelfAttention",
        "LayoutLMv2Config",
        {"fast_qkv": True, "has_relative_attention_bias": False, "has_spatial_attention_bias": False},
        inputs={"attention_mask": torch.zeros(2, 1, 1, 16)},
    ),
    Case("bark.BarkSelfAttention", "BarkSemanticConfig", {"num_heads": 4, "dropout": 0.0}),
    Case("openai.Attention", "OpenAIGPTConfig", arguments={"nx": 32, "n_positions": 16}),
    *(
        Case(name, config, {"n_positions": 16}, {**LAYER, "is_cross_attention": crossed}, inputs=inputs, roles=roles)
        for name, config in (
            ("gpt2.GPT2Attention", "GPT2Config"),
            ("decision_transformer.DecisionTransformerGPT2Attention", "DecisionTransformerConfig"),
            ("imagegpt.ImageGPTAttention", "ImageGPTConfig"),
        )
        for crossed, inputs, roles in ((False, {}, "qkv"), (True, {"encoder_hidden_states": TOKENS}, "kv"))
    ),
    *several(
        "evolla.EvollaSequenceCompressorAttention",
        arguments={"dim": 32},
        inputs={"latents": TOKENS, "mask": torch.ones(2, 32)},
        roles="kv",
    ),
    Case(
        "granite_speech.GraniteSpeechConformerAttention",
        "GraniteSpeechEncoderConfig",
        SPEECH,
        inputs=DISTANCES,
        roles="kv",
    ),
    Case(
        "granite_speech_plus.GraniteSpeechPlusConformerAttention",
        "GraniteSpeechPlusEncoderConfig",
        SPEECH,
        inputs=DISTANCES,
        roles="kv",
    ),
    Case(
        "jetmoe.JetMoeAttention",
        "JetMoeConfig",
        {"kv_channels": 8, "num_key_value_heads": 2, "num_local_experts": 2, "num_experts_per_tok": 2},
        LAYER,
        inputs=DECODER,
        roles="kv",
    ),
    Case(
        "bloom.BloomAttention",
        "BloomConfig",
        arguments=LAYER,
        inputs={"residual": TOKENS, "alibi": torch.zeros(8, 1, 16), "attention_mask": None},
    ),
    Case("gpt_neox.GPTNeoXAttention", "GPTNeoXConfig", arguments=LAYER, inputs=DECODER),
    Case(
        "gpt_neox_japanese.GPTNeoXJapaneseAttention",
        "GPTNeoXJapaneseConfig",
        arguments=LAYER,
        inputs={**DECODER, "position_ids": None},
    ),
    Case(
        "persimmon.PersimmonAttention",
        "PersimmonConfig",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}},
        LAYER,
        inputs=DECODER,
    ),
    Case("deberta.DisentangledSelfAttention", "DebertaConfig", inputs={"attention_mask": torch.ones(2, 1, 16, 16)}),
    Case("minimax.MiniMaxLightningAttention", "MiniMaxConfig", arguments=LAYER, inputs=DECODER),
    Case(
        "codegen.CodeGenAttention",
        "CodeGenConfig",
        {"rotary_dim": 4},
        LAYER,
        inputs={"position_embeddings": (torch.zeros(1, 16, 2), torch.ones(1, 16, 2))},
    ),
    Case("levit.LevitAttention", arguments={**LEVIT, "hidden_sizes": 32, "attention_ratio": 2, "resolution": 4}),
    Case(
        "levit.LevitAttentionSubsample",
        arguments={
            **LEVIT,
            "input_dim": 32,
            "output_dim": 32,
            "attention_ratio": 1,
            "stride": 2,
            "resolution_in": 4,
            "resolution_out": 2,
        },
        roles="kv",
    ),
    Case(
        "esmfold.EsmFoldInvariantPointAttention",
        options=POINTS,
        inputs={"z": tokens(2, 16, 16, 8), "r": Rigid.identity((2, 16)), "mask": torch.ones(2, 16)},
        roles="kv",
    ),
    Case("esmfold.EsmFoldSelfAttention", arguments={"embed_dim": 32, "num_heads": 4, "head_width": 8}),
    *(
        Case("gpt_bigcode.GPTBigCodeAttention", "GPTBigCodeConfig", {"multi_query": multi_query}, LAYER)
        for multi_query in (False, True)
    ),
    *(
        Case(
            "falcon.FalconAttention",
            "FalconConfig",
            options,
            LAYER,
            inputs={**DECODER, "alibi": None, "attention_mask": 0},
        )
        for options in (
            {"multi_query": True},
            {"multi_query": False},
            {"new_decoder_architecture": True, "num_kv_heads": 2},
        )
    ),
    *(
        Case(name, config, {"num_key_value_heads": heads, "pad_token_id": 0}, LAYER, inputs=DECODER)
        for (name, config), heads in itertools.product(
            (
                ("phi3.Phi3Attention", "Phi3Config"),
                ("phi4_multimodal.Phi4MultimodalAttention", "Phi4MultimodalConfig"),
            ),
            (4, 2),
        )
    ),
    *(
        Case(
            "dbrx.DbrxAttention",
            "DbrxConfig",
            {"attn_config": {"kv_n_heads": heads, "clip_qkv": 8, "rope_theta": 10000.0}},
            LAYER,
            inputs=DECODER,
        )
        for heads in (4, 2)
    ),
    Case(
        "mobilevitv2.MobileViTV2LinearSelfAttention",
        "MobileViTV2Config",
        arguments={"embed_dim": 32},
        x=tokens(2, 32, 4, 4),
    ),
    *(
        Case(f"{name}GatedDeltaNet", config, {**GATED, "linear_num_value_heads": heads}, LAYER)
        for (name, config), heads in itertools.product(
            (
                ("lara_mini.LaraMini", "LaraMiniConfig"),
                ("qwen3_5.Qwen3_5", "Qwen3_5TextConfig"),
                ("qwen3_5_moe.Qwen3_5Moe", "Qwen3_5MoeTextConfig"),
                ("qwen4_exp.Qwen4ExpText", "Qwen4ExpTextConfig"),
                ("qwen3_next.Qwen3Next", "Qwen3NextConfig"),
            ),
            (4, 8),
        )
    ),
    Case(
        "xlstm.xLSTMLayer", "xLSTMConfig", {"weight_mode": "fused", "num_heads": 4, "mode": "train", "chunk_size": 16}
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_cut_is_that_of_forward(case):
    file, _, name = case.name.partition(".")
    kind = class_of(f"transformers.models.{'esm' if file == 'esmfold' else file}.modeling_{file}.{name}")
    arguments = dict(case.arguments)
    if "config" in inspect.signature(kind).parameters:
        options = {"hidden_size": 32, "num_attention_heads": 4, "attn_implementation": "eager", **case.options}
        arguments["config"] = getattr(transformers, case.config)(**options)
    accepted = inspect.signature(inspect.unwrap(kind.forward)).parameters
    inputs = {name: value for name, value in case.inputs.items() if name in accepted}
    check(kind(**arguments), case.x, **inputs, roles=case.roles)


def test_every_listed_class_is_compared():
    assert {case.name for case in CASES} == listed("transformers")


def test_models_by_name():
    gpt2 = transformers.GPT2Model(transformers.GPT2Config(n_embd=8, n_head=2, n_layer=1, vocab_size=8, n_positions=8))
    assert fused_projections(gpt2) == {"h.0.attn.c_attn.weight": 3}
    mamba = transformers.MambaModel(transformers.MambaConfig(hidden_size=8, num_hidden_layers=1, vocab_size=8))
    assert "layers.0.mixer.in_proj.weight" in dict(mamba.named_parameters())
    assert fused_projections(mamba) == {}


def test_a_conv1d_is_declared_by_its_columns():
    conv1d = class_of("transformers.pytorch_utils.Conv1D")
    [(_, weight, count)] = OrthogonalityPenalty(torch.nn.Sequential(conv1d(12, 4)), split_qkv="0").weights()
    assert (weight.shape, count) == ((12, 4), 3)
    with pytest.raises(ValueError, match="whose output of 4 is no multiple of 3"):
        OrthogonalityPenalty(torch.nn.Sequential(conv1d(4, 12)), split_qkv="0")


def test_a_known_cut_is_not_declared_away():
    config = transformers.BloomConfig(hidden_size=8, n_head=2, n_layer=1, vocab_size=8)
    with pytest.raises(ValueError, match=r"can't cut .*query_key_value.weight: it interleaves q, k and v by head"):
        OrthogonalityPenalty(transformers.BloomModel(config), split_qkv="*query_key_value*")


def test_a_cross_attention_of_gpt_bigcode_can_not_run():
    config = transformers.GPTBigCodeConfig(n_embd=32, n_head=4, multi_query=False)
    module = class_of("transformers.models.gpt_bigcode.modeling_gpt_bigcode.GPTBigCodeAttention")(config, True, 0)
    assert "splits fewer rows" in fused_projections(module)["c_attn.weight"]
    with pytest.raises(RuntimeError, match="split_with_sizes"):
        module(tokens(), encoder_hidden_states=tokens())
