"""How the models of `transformers` are built from a configuration, tiny."""

from functools import partial

import transformers

TINY = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {"num_key_value_heads": 1}  # all query heads share one
ENCODER_DECODER = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
}


def _build(auto, kind, options):
    return auto.from_config(transformers.AutoConfig.for_model(kind, **{**TINY, **options}))


def base(kind, **options):
    return partial(_build, transformers.AutoModel, kind, options)


def causal(kind, **options):
    return partial(_build, transformers.AutoModelForCausalLM, kind, options)


def masked(kind, **options):
    return partial(_build, transformers.AutoModelForMaskedLM, kind, options)


def classifier(kind, **options):
    return partial(_build, transformers.AutoModelForSequenceClassification, kind, options)


def seq2seq(kind, **options):
    return partial(_build, transformers.AutoModelForSeq2SeqLM, kind, options)
