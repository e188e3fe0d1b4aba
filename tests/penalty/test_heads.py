"""`split_heads`: each head's q, k and v as a matrix of its own. Listed fused classes are compared in `forward_rows`."""

import pytest
import torch
from forward_rows import check_heads, class_of, frames, rows_by_role, tokens
from torch import nn
from truth import so_from_spectrum

from ortho_kernels import OrthogonalityPenalty
from ortho_kernels.penalty.heads import head_rows


def counts(encoder, **options):
    """The number of matrices in each weight, where it is more than one."""
    return {name: count for name, _, count in OrthogonalityPenalty(encoder, **options).weights() if count > 1}


class Attention(nn.Module):
    """A user's own, with as many heads in q as there are, and fewer in k and v."""

    def __init__(self):
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(8, 8), nn.Linear(8, 4)
        self.qkv = nn.Linear(8, 24)


@pytest.mark.parametrize("options", [{"split_heads": True}, {"split_heads": True, "split_qkv": True}])
def test_torch_attention_is_three_matrices_a_head(options):
    attention = nn.MultiheadAttention(8, 2, dtype=torch.float64)
    penalty = OrthogonalityPenalty(attention, gamma=1.0, exclude="out_proj", **options)
    [(name, _, count)] = penalty.weights()
    assert (name, count) == ("in_proj_weight", 6)
    heads = [head for part in attention.in_proj_weight.detach().chunk(3) for head in part.chunk(2)]
    torch.testing.assert_close(penalty().detach(), sum(map(so_from_spectrum, heads)))
    [gradient] = torch.autograd.grad(penalty(), [attention.in_proj_weight])
    penalty.accumulate_gradients()
    torch.testing.assert_close(attention.in_proj_weight.grad, gradient)


def test_output_projections_are_not_cut():
    assert counts(nn.MultiheadAttention(8, 2), split_heads=True) == {"in_proj_weight": 6}


def test_keys_of_another_width_have_weights_of_their_own():
    attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=4)
    assert counts(attention, split_heads=True) == {"q_proj_weight": 2, "k_proj_weight": 2, "v_proj_weight": 2}


def test_timm():
    timm = pytest.importorskip("timm")
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, embed_dim=24, num_heads=3, depth=1)
    assert counts(vit, split_heads=True) == {"blocks.0.attn.qkv.weight": 9}
    assert counts(vit, split_heads={"blocks.*.qkv": 3}) == {"blocks.0.attn.qkv.weight": 9}
    pvt = class_of("timm.models.pvt_v2.Attention")(32, num_heads=4)
    assert counts(pvt, split_heads=True) == {"q.weight": 4, "kv.weight": 8}
    unequal = class_of("timm.models.levit.Attention")(32, key_dim=8, num_heads=4, resolution=4)
    with pytest.raises(ValueError, match=r"split_heads can't cut qkv.*: it interleaves q, k and v by head"):
        counts(unequal, split_heads=True)


SMALL = {"hidden_size": 32, "num_attention_heads": 4, "attn_implementation": "eager"}
SEPARATE = [
    ("llama.LlamaAttention", "LlamaConfig", {"num_key_value_heads": 2}, {"layer_idx": 0}),
    ("qwen3.Qwen3Attention", "Qwen3Config", {"num_key_value_heads": 2, "head_dim": 16}, {"layer_idx": 0}),
    ("vit.ViTAttention", "ViTConfig", {}, {}),
    ("bert.BertSelfAttention", "BertConfig", {}, {}),
    ("clip.CLIPAttention", "CLIPVisionConfig", {}, {}),
    ("dinov2.Dinov2Attention", "Dinov2Config", {}, {}),
    ("distilbert.DistilBertSelfAttention", "DistilBertConfig", {"dim": 32, "n_heads": 4}, {}),
    ("t5.T5Attention", "T5Config", {"d_model": 32, "d_kv": 8, "num_heads": 4}, {}),
]


@pytest.mark.parametrize("case", SEPARATE, ids=lambda case: case[0])
def test_separate_projections_of_transformers_are_cut_as_forward_does(case):
    transformers = pytest.importorskip("transformers")
    name, config, options, arguments = case
    file, _, kind = name.partition(".")
    made = class_of(f"transformers.models.{file}.modeling_{file}.{kind}")
    module = made(getattr(transformers, config)(**{**SMALL, **options}), **arguments)
    rotation = torch.ones(1, 16, options.get("head_dim", 8)), torch.zeros(1, 16, options.get("head_dim", 8))
    inputs = {"position_embeddings": rotation, "attention_mask": None} if "layer_idx" in arguments else {}
    seen, sizes = frames(lambda: module(tokens(), **inputs)), head_rows(module)
    assert len(sizes) == 3
    assert counts(module, split_heads=True) == {
        weight: len(module.get_parameter(weight)) // size for weight, size in sizes.items()
    }
    for role, (weight, size) in zip("kqv", sorted(sizes.items()), strict=True):
        parameter = module.get_parameter(weight)
        rows = rows_by_role(seen, parameter, 0, role)
        assert rows[role] == list(range(len(parameter)))
        check_heads(size, seen, parameter, 0, rows)


def test_grouped_queries_in_one_weight_are_cut_head_by_head():
    transformers = pytest.importorskip("transformers")
    config = transformers.Phi3Config(**SMALL, num_key_value_heads=2, pad_token_id=0)
    attention = class_of("transformers.models.phi3.modeling_phi3.Phi3Attention")(config, layer_idx=0)
    assert counts(attention, split_heads=True) == {"qkv_proj.weight": 4 + 2 * 2}
    assert counts(attention, split_heads=True, split_qkv=True) == {"qkv_proj.weight": 8}
    with pytest.raises(ValueError, match=r"split_heads can't cut qkv_proj.weight: it is unequal"):
        counts(attention, split_heads={"qkv_proj": 4})  # of k and v there are two
    with pytest.raises(ValueError, match=r"split_qkv can't cut qkv_proj.weight: it is unequal: its q has"):
        counts(attention, split_qkv=True)


def test_heads_are_declared_by_patterns():
    model = nn.ModuleDict({"a": Attention()})
    assert counts(model, split_heads={"a.q_proj": 4, "*.k_proj": 2}) == {"a.q_proj.weight": 4, "a.k_proj.weight": 2}
    assert counts(model, split_heads={"a.q_proj": 4, "*_proj": 2}) == {"a.q_proj.weight": 4, "a.k_proj.weight": 2}
    assert counts(model, split_heads={"a.qkv": 4}, split_qkv="a.qkv") == {"a.qkv.weight": 12}
    assert counts({"w": torch.randn(8, 3)}, split_heads={"w": 4}) == {"w": 4}


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"split_heads": {"q": 2}}, ValueError, "split_heads pattern 'q' matches none of the weights: q_proj.weight"),
        (
            {"split_heads": {"q_proj": 3}},
            ValueError,
            "q_proj.weight, whose output of 8 is no multiple of 3: .* 3 heads",
        ),
        (
            {"split_heads": {"*_proj": 2, "q_proj": 4}},
            ValueError,
            "split_heads pattern 'q_proj' never counts: patterns b",
        ),
        ({"split_heads": {"q_proj": 0}}, ValueError, "split_heads has 0 for 'q_proj'; expected a positive int"),
        (
            {"split_heads": {"qkv": 2}},
            ValueError,
            r'declare so by split_qkv="qkv", and its heads by split_heads={pattern: ',
        ),
        (
            {"split_heads": True},
            ValueError,
            "split_heads can't cut qkv.weight: it is qkv of Attention, whose cut is unknown",
        ),
        (
            {"split_heads": True, "exclude": "qkv"},
            ValueError,
            "split_heads needs a projection to q, k or v of a known att",
        ),
        (
            {"split_heads": 4},
            TypeError,
            "split_heads must be True, False or numbers of heads by patterns of names; got 4",
        ),
        ({"split_heads": {}}, TypeError, "split_heads must be True, False or numbers of heads"),
    ],
)
def test_what_has_no_such_heads_is_refused(options, error, words):
    with pytest.raises(error, match=words):
        OrthogonalityPenalty(Attention(), **options)


def test_it_is_compiled_whole():
    penalty = OrthogonalityPenalty(nn.MultiheadAttention(8, 2), gamma=1.0, split_heads=True)
    compiled = torch.compile(lambda: 2 * penalty(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(), 2 * penalty())


def test_heads_of_two_sizes_are_not_cut():
    transformers = pytest.importorskip("transformers")
    sizes = {
        "linear_num_key_heads": 4,
        "linear_key_head_dim": 8,
        "linear_num_value_heads": 2,
        "linear_value_head_dim": 16,
    }
    config = transformers.Qwen3_5TextConfig(**SMALL, **sizes)
    layer = class_of("transformers.models.qwen3_5.modeling_qwen3_5.Qwen3_5GatedDeltaNet")(config, layer_idx=0)
    assert counts(layer, split_qkv=True)["in_proj_qkv.weight"] == 3
    with pytest.raises(ValueError, match=r"split_heads can't cut in_proj_qkv.weight: it has heads of two sizes"):
        counts(layer, split_heads=True)
