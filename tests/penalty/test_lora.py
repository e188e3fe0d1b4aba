"""LoRA's adapters: their factors alone, and their products."""

import copy

import pytest
import torch
import torch.distributed as dist
from lora_layers import AdaLoraLinear, LoraEmbedding, LoralibLinear, lora_convolution, lora_linear
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from truth import so_from_spectrum

from ortho_kernels import CosineSchedule, LoraPenalty, OrthogonalityPenalty, soft_orthogonality, srip

FACTORS = (
    "q.lora_A.default.weight", "q.lora_B.default.weight", "conv.lora_A.default.weight", "conv.lora_B.default.weight",
    "emb.lora_embedding_A.default", "emb.lora_embedding_B.default", "ada.lora_A.default", "ada.lora_B.default",
    "lib.lora_A", "lib.lora_B",
)  # fmt: skip
NO_FACTOR = "no factor of a LoRA adapter"


def network():
    return nn.ModuleDict(
        {
            "q": lora_linear(12, 16, 3),
            "conv": lora_convolution(4, 8, 2),
            "emb": LoraEmbedding(11, 7, 2),
            "ada": AdaLoraLinear(9, 6, 4),
            "lib": LoralibLinear(5, 8, 2),
            "head": nn.Linear(16, 3),
        }
    )


def adapted(model):
    return [layer for layer in model.values() if hasattr(layer, "product")]


def true_value(model):
    """The order-r value of all products, which are formed."""
    values = []
    for layer in adapted(model):
        M = layer.product().detach().double()
        values.append(so_from_spectrum(M) - (min(M.shape) - layer.rank))
    return sum(values).item()


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_adds_what_the_loss_would(penalty, model):
    """`accumulate_gradients` beside gradients that are there already, and where there are none."""
    penalty().backward()
    expected = gradients(model)
    model.zero_grad()
    value = penalty.accumulate_gradients()
    torch.testing.assert_close(gradients(model), expected)
    torch.testing.assert_close(value, penalty().detach())
    assert not value.requires_grad
    penalty.accumulate_gradients(2.0)
    torch.testing.assert_close(gradients(model), {name: 3 * gradient for name, gradient in expected.items()})
    return set(expected)


# The factors


@pytest.mark.parametrize(("kind", "function"), [("so", soft_orthogonality), ("srip", srip)])
def test_factors_cover_the_adapters_alone(kind, function):
    model = network()
    penalty = OrthogonalityPenalty(model, kind, lora="factors", gamma=0.5)
    assert penalty.names == FACTORS
    assert {name for name, reason in penalty.uncovered.items() if reason == NO_FACTOR} == {
        "q.base_layer.weight", "conv.base_layer.weight", "emb.base_layer.weight", "ada.base_layer.weight", "lib.weight",
        "head.weight",
    }  # fmt: skip
    assert penalty.uncovered["ada.lora_E.default"] == "singular values of an AdaLoRA adapter"
    if kind == "so":
        factors = [model.get_parameter(name) for name in FACTORS]
        torch.testing.assert_close(penalty(), 0.5 * soft_orthogonality(factors))
        assert assert_adds_what_the_loss_would(penalty, model) == set(FACTORS)


def test_include_exclude_and_extra_start_from_the_factors():
    model = network()
    assert OrthogonalityPenalty(model, lora="factors", include="*.lora_A").names == FACTORS[::2][:2] + FACTORS[6::2]
    assert set(OrthogonalityPenalty(model, lora="factors", exclude=["q", "emb"], extra="head").names) == {
        *FACTORS[2:4], *FACTORS[6:], "head.weight"
    }  # fmt: skip


def test_frozen_adapters_are_left_out_and_one_trained_factor_is_enough():
    model = nn.ModuleDict({"q": lora_linear(12, 16, 3)})
    model["q"].add("old", nn.Linear(12, 2, bias=False), nn.Linear(2, 16, bias=False))
    for factor in (model["q"].lora_A["old"], model["q"].lora_B["old"], model["q"].lora_A["default"]):
        factor.requires_grad_(False)
    for penalty in (OrthogonalityPenalty(model, lora="factors"), LoraPenalty(model, gamma=1.0)):
        assert penalty.uncovered["q.lora_A.old.weight"] == "factor of a frozen LoRA adapter"
        penalty.accumulate_gradients()
        assert set(gradients(model)) == {"q.lora_B.default.weight"}
        model.zero_grad()
    model["q"].requires_grad_(False)
    with pytest.raises(ValueError, match="the encoder's LoRA adapters are all frozen; train one first"):
        OrthogonalityPenalty(model, lora="factors")


@pytest.mark.parametrize("make", [lambda m: OrthogonalityPenalty(m, lora="factors"), lambda m: LoraPenalty(m, gamma=1)])
def test_a_model_without_adapters_is_an_error(make):
    with pytest.raises(ValueError, match=r"has no LoRA adapter, no weights named lora_A and lora_B; add one first"):
        make(nn.Sequential(nn.Linear(3, 4)))


def test_the_products_are_a_class_of_their_own():
    with pytest.raises(ValueError, match=r"lora must be None or 'factors'; got 'product'.*LoraPenalty"):
        OrthogonalityPenalty(network(), lora="product")


def test_adapters_of_experts_share_a_matrix_and_are_left_out():
    model = nn.ModuleDict({"q": lora_linear(12, 16, 3), "experts": lora_linear(12, 16, 6)})
    model["experts"].num_experts = 2
    penalty = OrthogonalityPenalty(model, lora="factors")
    assert penalty.names == FACTORS[:2]
    assert "adapters of 2 experts" in penalty.uncovered["experts.lora_A.default.weight"]


# The products


def test_products_of_every_kind_of_adapter():
    model = network()
    penalty = LoraPenalty(model, gamma=0.5)
    assert penalty.names == FACTORS[::2]
    assert not set(FACTORS) & set(penalty.uncovered)
    assert penalty.uncovered["head.weight"] == NO_FACTOR
    assert penalty().item() == pytest.approx(0.5 * true_value(model), rel=1e-5)
    assert assert_adds_what_the_loss_would(penalty, model) == {*FACTORS, "ada.lora_E.default"}
    assert not list(penalty.parameters())
    assert "covers 5 adapters: q.lora_A.default.weight" in repr(penalty)


def test_gradients_are_those_of_the_products_when_they_are_formed():
    model = network().double()
    LoraPenalty(model, gamma=1.0)().backward()
    own = gradients(model)
    model.zero_grad()
    soft_orthogonality([layer.product() for layer in adapted(model)]).backward()
    torch.testing.assert_close(own, gradients(model))


def test_products_can_be_narrowed_but_not_cut_apart():
    model = network()
    assert LoraPenalty(model, gamma=1, include=["q", "ada"], exclude="ada").names == ("q.lora_A.default.weight",)
    penalty = LoraPenalty(model, gamma=1, exclude="q.lora_B")
    assert penalty.names == FACTORS[2::2]
    assert penalty.uncovered["q.lora_A.default.weight"] == "factor whose other factor is not covered"
    with pytest.raises(ValueError, match="no pair of lora_A and lora_B to penalize"):
        LoraPenalty(model, gamma=1, include="*.lora_A.*")


def test_a_grouped_convolution_has_no_one_product():
    model = nn.ModuleDict({"q": lora_linear(12, 16, 3), "conv": lora_convolution(4, 8, 2, groups=2)})
    penalty = LoraPenalty(model, gamma=1.0)
    assert penalty.names == FACTORS[:1]
    assert penalty.uncovered["conv.lora_B.default.weight"] == "factor of a grouped convolution's adapter"


def test_adapters_and_scales_are_followed():
    model = nn.ModuleDict({"q": lora_linear(12, 16, 3)})
    penalty = LoraPenalty(model, gamma=1.0)
    model["q"].scaling["default"] = 2.0
    assert penalty().item() == pytest.approx(true_value(model), rel=1e-5)
    model["v"] = lora_linear(7, 5, 2)
    assert penalty().item() == pytest.approx(true_value(model), rel=1e-5)
    assert penalty.names == ("q.lora_A.default.weight", "v.lora_A.default.weight")
    model["q"], model["v"] = model["q"].base_layer, model["v"].base_layer
    with pytest.raises(ValueError, match="the model has changed: the encoder has no LoRA adapter"):
        penalty()


def test_a_copy_refers_to_the_copied_model():
    model = network()
    penalty = LoraPenalty(model, gamma=1.0)
    other, copied = copy.deepcopy((model, penalty))
    with torch.no_grad():
        other["q"].lora_B["default"].weight.mul_(2)
    assert copied().item() == pytest.approx(true_value(other), rel=1e-5)
    assert penalty().item() == pytest.approx(true_value(model), rel=1e-5)


def test_compiled_it_is_one_graph():
    model = network()
    penalty = LoraPenalty(model, gamma=0.5)
    compiled = torch.compile(lambda: penalty(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(), penalty())


def test_a_gradient_scaler_s_scale_is_a_factor():
    model = network()
    penalty = LoraPenalty(model, gamma=0.5)
    penalty().backward()
    expected = {name: 8 * gradient for name, gradient in gradients(model).items()}
    model.zero_grad()
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    value = penalty.accumulate_gradients(scaler=scaler)
    torch.testing.assert_close(gradients(model), expected)
    torch.testing.assert_close(value, penalty().detach())


def test_bad_factors_are_named():
    layer = lora_linear(12, 16, 3)
    layer.add("default", nn.Linear(12, 20, bias=False), nn.Linear(20, 16, bias=False))
    with pytest.raises(
        ValueError, match=r"q\.lora_B\.default\.weight is a 16 x 20 matrix, .* the rank 20 is more than"
    ):
        LoraPenalty(nn.ModuleDict({"q": layer}), gamma=1.0)
    layer.lora_A["default"].weight = nn.Parameter(torch.ones(20, 12, dtype=torch.int8), requires_grad=False)
    with pytest.raises(TypeError, match=r"q\.lora_A\.default\.weight has dtype torch.int8"):
        LoraPenalty(nn.ModuleDict({"q": layer}), gamma=1.0)


@pytest.mark.parametrize("gamma", [float("nan"), True, "1", {"*": 1.0}, torch.tensor(1.0), CosineSchedule(1.0, 0.0, 9)])
def test_gamma_is_a_finite_number(gamma):
    with pytest.raises(ValueError, match=r"gamma must be a finite number; got .*set penalty\.gamma at each step"):
        LoraPenalty(network(), gamma=gamma)


# Sharded factors


@pytest.fixture
def one_process():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_sharded_factors_have_the_gradients_of_whole_ones(one_process):
    from torch.distributed.fsdp import fully_shard

    model = nn.Sequential(lora_linear(12, 16, 3), AdaLoraLinear(9, 6, 4))
    value = LoraPenalty(model, gamma=0.5).accumulate_gradients()
    expected = gradients(model)
    model.zero_grad()
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    assert LoraPenalty(model, gamma=0.5).accumulate_gradients() == value
    torch.testing.assert_close({name: g.full_tensor() for name, g in gradients(model).items()}, expected)
