"""Experts of known classes: covered by default, expert by expert, and their gate and up projections cut apart."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from truth import so_from_spectrum, so_gradient

from ortho_kernels import OrthogonalityPenalty
from ortho_kernels.penalty.experts import STACKED, known_batch
from ortho_kernels.penalty.fused_gates import GATE_UP, KNOWN

EXPERTS, WIDTH, INSIDE = 3, 8, 6
EARLIER = """aria.AriaGroupedExpertsGemm granitemoe.GraniteMoeMoE granitemoe.GraniteMoeParallelExperts
    granitemoehybrid.GraniteMoeHybridMoE granitemoehybrid.GraniteMoeHybridParallelExperts
    granitemoeshared.GraniteMoeSharedMoE granitemoeshared.GraniteMoeSharedParallelExperts"""


def like(name, library="transformers.models", **shapes):
    """A module of the class FILE.CLASS of transformers, with parameters of these shapes."""
    file, _, kind = name.partition(".")
    made = type(kind, (nn.Module,), {"__module__": f"{library}.{file}.modeling_{file}"})()
    for attribute, shape in shapes.items():
        setattr(made, attribute, nn.Parameter(torch.randn(shape, dtype=torch.float64)))
    return made


def mixtral():
    return like("mixtral.MixtralExperts", gate_up_proj=(3, 12, 8), down_proj=(3, 8, 6))


def llama4():
    return like("llama4.Llama4TextExperts", gate_up_proj=(3, 8, 12), down_proj=(3, 6, 8))


def gpt_oss():
    return like("gpt_oss.GptOssExperts", gate_up_proj=(3, 8, 12), down_proj=(3, 6, 8), gate_up_proj_bias=(3, 12))


@pytest.mark.parametrize("make", [mixtral, llama4, gpt_oss])
@pytest.mark.parametrize("side", ["small", "rows"])
def test_each_expert_is_a_matrix_of_its_own(make, side):
    model = nn.ModuleDict({"experts": make()})
    penalty = OrthogonalityPenalty(model, gamma=1.0, side=side)
    assert penalty.names == ("experts.gate_up_proj", "experts.down_proj")
    assert [view.shape for _, view in zip(penalty.names, (row.view for row in penalty.report()), strict=True)] == [
        (3, 12, 8),
        (3, 8, 6),
    ]
    weights = list(model.parameters())[:2]
    outputs_first = [weight if make is mixtral else weight.transpose(1, 2) for weight in weights]
    excess = {"small": 0, "rows": 3 * (12 - 8) + 3 * (8 - 6)}[side]
    truth = excess + sum(so_from_spectrum(matrix.detach()) for weight in outputs_first for matrix in weight)
    value = penalty()
    torch.testing.assert_close(value.detach(), truth)
    expected = [torch.stack([so_gradient(matrix) for matrix in weight.detach()]) for weight in weights]
    for given, gradient in zip(torch.autograd.grad(value, weights), expected, strict=True):
        torch.testing.assert_close(given, gradient)
    penalty.accumulate_gradients()
    penalty.accumulate_gradients()
    for weight, gradient in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.grad, 2 * gradient)


@pytest.mark.parametrize("make", [mixtral, llama4])
@pytest.mark.parametrize("kind", ["so", "srip"])
def test_gate_and_up_are_two_matrices_an_expert(make, kind):
    model = make()
    penalty = OrthogonalityPenalty(model, kind, gamma=1.0, split_gate_up=True)
    assert [count for *_, count in penalty.weights()] == [6, 3]
    assert [row.view.shape for row in penalty.report()] == [(6, 6, 8), (3, 8, 6)]
    if kind == "so":
        gate_up = model.gate_up_proj if make is mixtral else model.gate_up_proj.transpose(1, 2)
        down = model.down_proj
        matrices = [half for expert in gate_up for half in (expert[:6], expert[6:])] + list(down)
        truth = sum(so_from_spectrum(matrix.detach()) for matrix in matrices)
        torch.testing.assert_close(penalty().detach(), truth)
        given = torch.autograd.grad(penalty(), model.gate_up_proj)[0]
        halves = [so_gradient(half.detach()) for half in matrices[:6]]
        expected = torch.cat(halves).unflatten(0, (3, 12))
        torch.testing.assert_close(given, expected if make is mixtral else expected.transpose(1, 2))
    model.zero_grad()
    value = penalty.accumulate_gradients()
    assert value > 0
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_interleaved_gates_are_not_cut():
    with pytest.raises(ValueError, match="split_gate_up can't cut gate_up_proj: it interleaves gate and up row by row"):
        OrthogonalityPenalty(gpt_oss(), split_gate_up=True)
    later = like("later.LaterExperts", gate_up_proj=(3, 12, 8), down_proj=(3, 8, 6))
    later.is_concatenated = False  # as transformers notes it
    with pytest.raises(ValueError, match="it interleaves gate and up"):
        OrthogonalityPenalty(later, split_gate_up=True)


def test_a_layer_that_fuses_gate_and_up_is_cut_in_halves():
    mlp = like("phi3.Phi3MLP")
    mlp.gate_up_proj, mlp.down_proj = nn.Linear(4, 12), nn.Linear(6, 4)
    assert [count for *_, count in OrthogonalityPenalty(mlp, split_gate_up=True).weights()] == [2, 1]
    unknown = nn.Module()
    unknown.gate_up_proj = nn.Linear(4, 12)
    with pytest.raises(ValueError, match=r"it is gate_up_proj of Module, .* declare so by split_gate_up=.gate_up_proj"):
        OrthogonalityPenalty(unknown, split_gate_up=True)
    assert [count for *_, count in OrthogonalityPenalty(unknown, split_gate_up="gate_up_proj").weights()] == [2]
    with pytest.raises(ValueError, match="split_gate_up needs a fused gate and up projection"):
        OrthogonalityPenalty(nn.Linear(4, 4), split_gate_up=True)


def test_experts_of_an_unknown_library_need_batch_dims():
    own = like("mixtral.MixtralExperts", "somewhere", gate_up_proj=(3, 12, 8), down_proj=(3, 8, 6))
    with pytest.raises(
        ValueError, match=r"gate_up_proj, down_proj: .* if it is a batch of matrices, `batch_dims` adds it"
    ):
        OrthogonalityPenalty(own)
    named = OrthogonalityPenalty(own, batch_dims={"*_proj": 1}, split_gate_up="gate_up_proj", gamma=1.0)
    assert [count for *_, count in named.weights()] == [6, 3]


def test_experts_are_compiled_whole():
    penalty = OrthogonalityPenalty(llama4(), gamma=1.0, split_gate_up=True)
    compiled = torch.compile(lambda: 2 * penalty(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(), 2 * penalty())


def test_stacked_linear_layers_are_covered():
    head = like("moshi.MoshiFlexibleLinear", weight=(3, 5, 4))
    grouped = like("convbert.GroupedLinearLayer", weight=(3, 4, 5))
    penalty = OrthogonalityPenalty(nn.Sequential(head, grouped))
    assert [row.view.shape for row in penalty.report()] == [(3, 5, 4), (3, 5, 4)]


class Sizes:
    """A module or a configuration in which every size has its number."""

    def __getattr__(self, name):
        if "expert" in name and "dim" not in name:
            return EXPERTS
        return INSIDE if "inter" in name else WIDTH


def sources(library, *patterns):
    """The classes of a library as FILE.CLASS, each with the text of its decorators and its body. Nothing is imported."""
    spec = importlib.util.find_spec(library)
    if spec is None:
        pytest.skip(f"needs {library}")
    files = (path for pattern in patterns for path in Path(spec.origin).parent.glob(pattern))
    return {
        f"{path.stem.removeprefix('modeling_')}.{name}": (decorators, body)
        for path in files
        for decorators, name, body in re.findall(
            r"((?:^@.*\n)*)^class (\w+).*:\n((?:(?:[ \t].*)?\n)*)", path.read_text(), re.MULTILINE
        )
    }


def shapes_in(body):
    """The parameters that a class makes, and their shapes."""
    found = re.findall(
        r"self\.(\w+) = nn\.Parameter\( ?torch\.\w+\((\(?self\.\w+, [^,]+, [^,]+?\)?)\) ?\) ", re.sub(r"\s+", " ", body)
    )
    named = {"self": Sizes(), "input_dim": WIDTH}
    return {attribute: eval(f"({shape})", named) for attribute, shape in found}


def test_every_class_of_experts_in_transformers_is_read_as_it_says():
    """Where transformers notes the layout of experts, it is ours. A new class that stands otherwise fails here."""
    read = set()
    for name, (decorators, body) in sources("transformers", "models/*/modeling_*.py").items():
        if not name.endswith("Experts") or name == "jetmoe.JetMoeParallelExperts":
            continue
        shapes = shapes_in(body)
        experts = like(name, **shapes)
        for attribute in shapes:
            batch = known_batch(experts, attribute)
            assert batch is not None, (name, attribute)
            assert batch.transposed == ("is_transposed=True" in decorators or "Llama4" in name), (name, attribute)
        if "gate_up_proj" in shapes:
            read.add(name)
            assert (GATE_UP.known_cut(experts, "gate_up_proj") == 2) == ("is_concatenated=False" not in decorators)
    assert {"mixtral.MixtralExperts", "qwen3_moe.Qwen3MoeExperts", "gpt_oss.GptOssExperts"} <= read
    assert {"llama4.Llama4TextExperts", "deepseek_v3.DeepseekV3Experts", "aria.AriaExperts"} <= read
    assert len(read) > 50


def test_listed_classes_are_there():
    """In the version that is installed, but for those of earlier versions."""
    found = {
        **{f"timm.{name}": text for name, text in sources("timm", "layers/*.py").items()},
        **{f"transformers.{name}": text for name, text in sources("transformers", "models/*/modeling_*.py").items()},
    }
    earlier = {f"transformers.{name}" for name in EARLIER.split()}
    for key in (*STACKED, *KNOWN):
        name, _, attribute = key.rpartition(".")
        assert name in earlier or f"self.{attribute} = " in found[name][1], key
