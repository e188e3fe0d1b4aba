"""Models that other libraries change after the penalty was made, and what is covered when it is asked for."""

import re

import peft
import pytest
import torch
from architectures import ENTRY, RECURRENT, TIED
from torch import nn
from torchao.quantization import Int8WeightOnlyConfig, quantize_
from transformers_models import GROUPED, causal, classifier

from ortho_kernels import LoraPenalty, OrthogonalityPenalty, soft_orthogonality
from ortho_kernels.compat import compute_orth_regu

QUERY = "model.layers.0.self_attn.q_proj"


def llama():
    return causal("llama", **GROUPED)()


def mixtral():
    return causal("mixtral", num_local_experts=4, **GROUPED)()


def assert_as_if_made_now(penalty, model):
    fresh = OrthogonalityPenalty(model)
    assert penalty() == fresh()
    assert penalty.names == fresh.names
    assert penalty.uncovered == fresh.uncovered


# Adapters of PEFT


@pytest.mark.parametrize(
    ("build", "layer"), [(llama, QUERY), (causal("gpt2"), "transformer.h.0.attn.c_attn")], ids=["llama", "gpt2"]
)
def test_lora_is_followed_into_the_model_and_out_of_it(build, layer):
    model = build()
    penalty = OrthogonalityPenalty(model)
    before = penalty.names
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=[layer]))
    assert_as_if_made_now(penalty, model)
    adapter = {f"{layer}.lora_A.default.weight", f"{layer}.lora_B.default.weight"}
    assert set(penalty.names) - set(before) == adapter | {f"{layer}.base_layer.weight"}
    penalty().backward()
    touched = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert touched == adapter  # PEFT freezes all else
    adapted.merge_and_unload()
    assert_as_if_made_now(penalty, model)
    assert penalty.names == before


def test_a_penalty_made_with_lora_outlives_it():
    adapted = peft.get_peft_model(llama(), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    penalty = OrthogonalityPenalty(adapted)
    assert f"base_model.model.{QUERY}.lora_A.default.weight" in penalty.names
    adapted.merge_and_unload()
    assert_as_if_made_now(penalty, adapted)
    assert f"base_model.model.{QUERY}.weight" in penalty.names


def test_adalora_keeps_parameters_in_dictionaries_which_are_added_when_asked_for():
    model = llama()
    options = {"init_r": 4, "target_r": 2, "total_step": 10, "target_modules": ["q_proj"]}
    peft.get_peft_model(model, peft.AdaLoraConfig(**options))
    penalty = OrthogonalityPenalty(model)
    for factor in ("lora_A", "lora_B", "lora_E"):
        assert ENTRY in penalty.uncovered[f"{QUERY}.{factor}.default"]
    more = OrthogonalityPenalty(model, extra=["*.lora_A.*", "*.lora_B.*"])
    added = {f"{QUERY}.lora_A.default", f"{QUERY}.lora_B.default"}
    assert set(more.names) == set(penalty.names) | added
    factors = [model.get_parameter(name) for name in added]
    torch.testing.assert_close(more(), penalty() + more.gamma * soft_orthogonality(factors))


ADAPTERS = {
    "lora": peft.LoraConfig(r=2, target_modules=["q_proj", "embed_tokens"]),
    "dora": peft.LoraConfig(r=2, use_dora=True, target_modules=["q_proj"]),
    "rslora": peft.LoraConfig(r=3, lora_alpha=5, use_rslora=True, target_modules=["q_proj", "v_proj"]),
    "adalora": peft.AdaLoraConfig(init_r=4, target_r=2, total_step=10, target_modules=["q_proj"]),
}


@pytest.mark.parametrize("config", list(ADAPTERS.values()), ids=list(ADAPTERS))
def test_the_products_are_what_peft_merges(config):
    adapted = peft.get_peft_model(llama(), config)
    layers = [layer for layer in adapted.modules() if isinstance(layer, peft.tuners.lora.LoraLayer)]
    for name, parameter in adapted.named_parameters():
        if "lora_" in name and "magnitude" not in name:
            nn.init.normal_(parameter, std=0.5)
    penalty = LoraPenalty(adapted, gamma=1.0)
    assert len(penalty.names) == len(layers)
    products = [layer.get_delta_weight("default").detach() for layer in layers]
    constant = sum(min(M.shape) - layer.r["default"] for M, layer in zip(products, layers, strict=True))
    torch.testing.assert_close(penalty() + constant, soft_orthogonality(products), rtol=1e-5, atol=0)
    factors = OrthogonalityPenalty(adapted, lora="factors").names
    assert set(factors) == {
        name for name, _ in adapted.named_parameters() if re.search(r"lora_(embedding_)?[AB]", name)
    }


def test_adalora_s_term_is_what_peft_adds_to_the_loss():
    adapted = peft.get_peft_model(llama(), ADAPTERS["adalora"])
    ids = torch.arange(6)[None]
    losses = [call(input_ids=ids, labels=ids).loss for call in (adapted.base_model, adapted)]
    term = compute_orth_regu(adapted, adapted.peft_config["default"].orth_reg_weight, adapter="default")
    torch.testing.assert_close(losses[0] - losses[1], term, rtol=1e-5, atol=0)  # without a task_type PEFT adds nothing


def test_a_new_head_is_covered():
    model = classifier("bert")()
    penalty = OrthogonalityPenalty(model)
    penalty()
    model.classifier = nn.Linear(16, 7)
    model.second_classifier = nn.Linear(16, 5)
    assert_as_if_made_now(penalty, model)
    assert {"classifier.weight", "second_classifier.weight"} <= set(penalty.names)


# Quantized weights of torchao


def test_a_quantized_weight_is_refused_by_name_unless_it_is_excluded():
    model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 16))
    quantize_(model, Int8WeightOnlyConfig(), filter_fn=lambda layer, name: name == "0")
    with pytest.raises(TypeError, match=r"\b0\.weight\b.*Int8Tensor"):
        OrthogonalityPenalty(model)
    penalty = OrthogonalityPenalty(model, exclude="0")
    assert penalty.names == ("2.weight",)
    torch.testing.assert_close(penalty(), penalty.gamma * soft_orthogonality([model[2].weight]))


# What the default leaves out


@pytest.mark.parametrize("recurrence", [nn.LSTM, nn.GRU])
def test_recurrent_weights_are_added_by_their_type(recurrence):
    model = nn.ModuleDict({"recurrence": recurrence(4, 8), "head": nn.Linear(8, 2)})
    weights = {"recurrence.weight_ih_l0", "recurrence.weight_hh_l0"}
    penalty = OrthogonalityPenalty(model)
    assert penalty.names == ("head.weight",)
    assert set(penalty.uncovered) == weights
    assert all(RECURRENT in reason for reason in penalty.uncovered.values())
    more = OrthogonalityPenalty(model, extra=recurrence)
    assert set(more.names) == weights | {"head.weight"}
    assert not more.uncovered


@pytest.mark.parametrize(("options", "gate_up"), [({}, 4), ({"split_gate_up": True}, 8)])
def test_experts_are_covered_one_by_one(options, gate_up):
    penalty = OrthogonalityPenalty(mixtral(), gamma=1.0, include="*.experts", **options)
    counts = {name.rpartition(".")[2]: count for name, _, count in penalty.weights()}
    assert counts == {"gate_up_proj": gate_up, "down_proj": 4}
    by_name = dict(penalty.encoder.named_parameters())
    truth = sum(
        soft_orthogonality([part])
        for name in penalty.names
        for expert in by_name[name]
        for part in expert.chunk(counts[name.rpartition(".")[2]] // 4)
    )
    torch.testing.assert_close(penalty(), truth)


def test_heads_of_a_grouped_query_are_cut():
    model = mixtral()
    counts = {name: count for name, _, count in OrthogonalityPenalty(model, split_heads=True).weights()}
    attention = model.model.layers[0].self_attn
    assert {name: counts[f"model.layers.0.self_attn.{name}_proj.weight"] for name in "qkvo"} == {
        "q": attention.config.num_attention_heads,
        "k": attention.config.num_key_value_heads,
        "v": attention.config.num_key_value_heads,
        "o": 1,
    }


def test_a_router_is_added_by_name():
    model = mixtral()
    router = "model.layers.0.mlp.gate.weight"
    penalty = OrthogonalityPenalty(model)
    assert router in penalty.uncovered
    more = OrthogonalityPenalty(model, extra=router)
    assert set(more.names) == {*penalty.names, router}
    assert router not in more.uncovered


@pytest.mark.parametrize("kind", ["gpt2", "qwen2", "llama", "gemma"])
def test_a_tied_output_layer_is_not_covered_and_the_penalty_says_so(kind):
    model = causal(kind, tie_word_embeddings=True)()
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    penalty = OrthogonalityPenalty(model)
    assert model.get_input_embeddings().weight not in {weight for _, weight, _ in penalty.weights()}
    assert TIED in repr(penalty)
    assert "lm_head" in repr(penalty)


def test_the_linear_layers_of_gpt2_are_covered():
    layers = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert set(OrthogonalityPenalty(causal("gpt2")()).names) == {f"transformer.h.0.{layer}.weight" for layer in layers}
