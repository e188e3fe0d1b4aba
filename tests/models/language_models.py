"""Language models of `transformers`: encoders, decoders, mixtures of experts, state spaces, encoder-decoders."""

from functools import partial

import peft
import transformers
from architectures import BARE, BATCH, EMBEDDING, ENTRY, TIED, Architecture, arguments
from transformers_models import ENCODER_DECODER, GROUPED, base, causal, classifier, masked, seq2seq

tokens = arguments(input_ids=(2, 6))
pair = arguments(input_ids=(2, 6), decoder_input_ids=(2, 4))

RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 8}
POSITIONS = {"encoder.rel_embeddings.weight": EMBEDDING}
ROUTED = {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
LOCAL = {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}
DEEPSEEK = {
    **ROUTED,
    "num_key_value_heads": 2,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 0,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
}
GEMMA = {**GROUPED, "head_dim": 8}
RECURRENT_GEMMA = {
    **GEMMA,
    "num_hidden_layers": 2,
    "block_types": ("recurrent", "attention"),
    "lru_width": 16,
    "attention_window_size": 16,
}
JAMBA = {
    **GROUPED,
    "num_hidden_layers": 2,
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "num_experts": 1,
    "mamba_d_state": 4,
    "mamba_dt_rank": 2,
}
LLAMA4 = {**LOCAL, "num_experts_per_tok": 1, "head_dim": 8, "intermediate_size_mlp": 16}
RWKV = {"num_hidden_layers": 2, "attention_hidden_size": 16, "context_length": 32}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
SWITCH = {
    **T5,
    "num_decoder_layers": 1,
    "num_experts": 1,
    "num_sparse_encoder_layers": 1,
    "num_sparse_decoder_layers": 1,
}


def routed_by(router):
    return {f"*.mlp.{router}.weight": BARE}


def xlnet():
    return transformers.XLNetModel(transformers.XLNetConfig(vocab_size=32, d_model=16, n_layer=1, n_head=2, d_inner=32))


def adapted(config, **options):
    return peft.get_peft_model(causal("llama", **GROUPED)(), config(target_modules=["q_proj"], **options))


LANGUAGE = [
    # Encoders.
    Architecture("bert", masked("bert"), tokens, {"*.word_embeddings.weight": TIED}),
    Architecture("bert_classifier", classifier("bert"), tokens),
    Architecture("roberta", masked("roberta"), tokens, {"*.word_embeddings.weight": TIED}),
    Architecture("distilbert", masked("distilbert"), tokens, {"*.word_embeddings.weight": TIED}),
    Architecture("albert", masked("albert", embedding_size=8), tokens, {"*.word_embeddings.weight": TIED}),
    Architecture("electra", base("electra", embedding_size=8), tokens),
    Architecture("deberta_v2", base("deberta-v2", **RELATIVE), tokens, POSITIONS),
    Architecture("modernbert", masked("modernbert"), tokens, {"*.tok_embeddings.weight": TIED}),
    Architecture("fnet", base("fnet"), tokens),
    Architecture("xlnet", xlnet, tokens, {"layer.0.rel_attn.[kqvor]": BATCH}),
    # Decoders.
    Architecture("gpt2", causal("gpt2"), tokens, {"transformer.wte.weight": TIED}),
    Architecture("gpt_neox", causal("gpt_neox"), tokens),
    Architecture("gptj", causal("gptj", rotary_dim=4), tokens),
    Architecture("opt", causal("opt", word_embed_proj_dim=8), tokens, {"*.embed_tokens.weight": TIED}),
    Architecture("bloom", causal("bloom"), tokens, {"*.word_embeddings.weight": TIED}),
    Architecture("falcon", causal("falcon"), tokens, {"*.word_embeddings.weight": TIED}),
    Architecture("phi3", causal("phi3", **GROUPED), tokens),
    Architecture("llama", causal("llama", **GROUPED), tokens),
    Architecture(
        "llama_tied", causal("llama", **GROUPED, tie_word_embeddings=True), tokens, {"*.embed_tokens.weight": TIED}
    ),
    Architecture(
        "qwen2_tied", causal("qwen2", **GROUPED, tie_word_embeddings=True), tokens, {"*.embed_tokens.weight": TIED}
    ),
    Architecture("qwen3", causal("qwen3", **GROUPED), tokens),
    Architecture("gemma", causal("gemma", **GEMMA), tokens, {"*.embed_tokens.weight": TIED}),
    Architecture("gemma3", causal("gemma3_text", **GEMMA), tokens, {"*.embed_tokens.weight": TIED}),
    Architecture("mistral", causal("mistral", **GROUPED), tokens),
    # Mixtures of experts.
    Architecture("mixtral", causal("mixtral", **LOCAL), tokens, routed_by("gate")),
    Architecture("qwen3_moe", causal("qwen3_moe", **ROUTED), tokens, routed_by("gate")),
    Architecture("olmoe", causal("olmoe", **ROUTED), tokens, routed_by("gate")),
    Architecture("deepseek_v3", causal("deepseek_v3", **DEEPSEEK), tokens, routed_by("gate")),
    Architecture("gpt_oss", causal("gpt_oss", head_dim=8, **LOCAL), tokens, routed_by("router")),
    Architecture(
        "jetmoe",
        causal("jetmoe", kv_channels=8, **LOCAL),
        tokens,
        {"*.embed_tokens.weight": TIED},
    ),
    Architecture("llama4", causal("llama4_text", **LLAMA4), tokens),
    Architecture("switch", seq2seq("switch_transformers", **SWITCH), pair, {"shared.weight": TIED}),
    # State spaces and linear recurrences.
    Architecture("mamba", causal("mamba", state_size=4), tokens, {"backbone.embeddings.weight": TIED}),
    Architecture("rwkv", causal("rwkv", **RWKV), tokens),
    Architecture("mamba2", causal("mamba2", state_size=4, num_heads=4, head_dim=8, n_groups=1), tokens),
    Architecture(
        "recurrent_gemma",
        causal("recurrent_gemma", **RECURRENT_GEMMA),
        tokens,
        {"*.embed_tokens.weight": TIED},
    ),
    Architecture("jamba", causal("jamba", **JAMBA), tokens),
    # Adapters.
    Architecture("lora", partial(adapted, peft.LoraConfig, r=2), tokens),
    Architecture("adalora", partial(adapted, peft.AdaLoraConfig, total_step=10), tokens, {"*.lora_?.default": ENTRY}),
    # Encoders with decoders.
    Architecture("t5", seq2seq("t5", **T5), pair, {"shared.weight": TIED}),
    Architecture("bart", seq2seq("bart", **ENCODER_DECODER), pair, {"model.shared.weight": TIED}),
]
