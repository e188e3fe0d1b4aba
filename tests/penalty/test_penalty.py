"""OrthogonalityPenalty: what it covers, what it reports, how it lives in a model."""

import numpy as np
import pytest
import torch
from torch import nn
from truth import as_matrices, so_from_spectrum

from ortho_kernels import OrthogonalityPenalty, soft_orthogonality


def encoder():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, groups=4),
        nn.ConvTranspose2d(8, 6, 2, groups=2),
        nn.LayerNorm(6),
        nn.Embedding(10, 6),
        nn.Linear(6, 5),
    )


def expected(model, groups):
    weights = [module.weight for module in model if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))]
    return sum(so_from_spectrum(W) for w, g in zip(weights, groups, strict=True) for W in as_matrices([w], g))


def test_covers_conv_and_linear_weights_alone(backend):
    model = encoder()
    penalty = OrthogonalityPenalty(model, gamma=0.5)
    assert penalty.names == ("0.weight", "2.weight", "3.weight", "6.weight")
    value = penalty()
    assert value.item() == pytest.approx(0.5 * expected(model, [1, 4, 2, 1]).item(), rel=1e-5)
    value.backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None}
    assert touched == set(penalty.names)


def test_attention_projections_are_covered():
    layer = nn.TransformerEncoderLayer(8, 2, 16)
    names = set(OrthogonalityPenalty(layer).names)
    assert names == {"self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"}
    separate = nn.MultiheadAttention(8, 2, kdim=6, vdim=4)
    assert set(OrthogonalityPenalty(separate).names) == {
        "q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"
    }  # fmt: skip


def test_fused_projections_count_as_three_matrices_where_that_is_asked_for():
    layer = nn.TransformerEncoderLayer(6, 2, 12)
    fused, split = (
        OrthogonalityPenalty(layer, gamma=1.0, include="*proj*", split_qkv=split) for split in (False, True)
    )
    parts = layer.self_attn.in_proj_weight.chunk(3)
    rest = soft_orthogonality([layer.self_attn.out_proj.weight])
    torch.testing.assert_close(split(), soft_orthogonality(list(parts)) + rest)
    torch.testing.assert_close(fused(), soft_orthogonality([layer.self_attn.in_proj_weight]) + rest)
    own = nn.ModuleDict({"attn": nn.ModuleDict({"qkv": nn.Linear(4, 12), "proj": nn.Linear(4, 4)})})
    groups = {name: count for name, _, count in OrthogonalityPenalty(own, split_qkv="*.qkv").weights()}
    assert groups == {"attn.qkv.weight": 3, "attn.proj.weight": 1}
    with pytest.raises(ValueError, match=r'attn.qkv.weight: .*cut is unknown.*split_qkv="attn.qkv"'):
        OrthogonalityPenalty(own, split_qkv=True)
    with pytest.raises(ValueError, match=r"split_qkv needs a fused .* among the weights: 0.weight"):
        OrthogonalityPenalty(encoder(), split_qkv=True)


def test_default_gamma_is_the_papers():
    assert OrthogonalityPenalty(encoder()).gamma == 1e-6
    assert OrthogonalityPenalty(encoder(), "srip").gamma == 1e-3


def test_gamma_can_be_scheduled():
    penalty = OrthogonalityPenalty(encoder(), gamma=1.0)
    one = penalty().item()
    penalty.gamma = 0.25
    assert penalty().item() == pytest.approx(one / 4)


def test_include_and_exclude():
    model = encoder()
    assert OrthogonalityPenalty(model, include=["0.*", "6"]).names == ("0.weight", "6.weight")
    assert OrthogonalityPenalty(model, exclude="3.*").names == ("0.weight", "2.weight", "6.weight")
    with pytest.raises(ValueError, match=r"include pattern 'layer9.\*' matches none of the weights: 0.weight"):
        OrthogonalityPenalty(model, include="layer9.*")
    with pytest.raises(ValueError, match=r"include and exclude leave none of: 0.weight"):
        OrthogonalityPenalty(model, exclude="*")


def test_nothing_to_penalize_lists_what_there_is():
    with pytest.raises(
        ValueError, match="no conv or linear weight to penalize; it holds 1 Sequential, 2 ReLU, 1 BatchNorm1d"
    ):
        OrthogonalityPenalty(nn.Sequential(nn.ReLU(), nn.ReLU(), nn.BatchNorm1d(3)))


def test_unknown_kinds_and_options():
    with pytest.raises(ValueError, match="kind must be one of 'so', 'srip'; got 'SO'"):
        OrthogonalityPenalty(encoder(), "SO")
    with pytest.raises(TypeError, match="'so' has no option 'iterations'; it has diagonal"):
        OrthogonalityPenalty(encoder(), "so", iterations=3)
    with pytest.raises(ValueError, match="iterations must be a positive int"):
        OrthogonalityPenalty(encoder(), "srip", iterations=0)
    with pytest.raises(
        TypeError, match=r"encoder must be an nn\.Module, named parameters or a list of parameters; got one"
    ):
        OrthogonalityPenalty(torch.randn(3, 4))
    with pytest.raises(ValueError, match="gamma must be a finite number; got '1'"):
        OrthogonalityPenalty(encoder(), gamma="1")
    for gamma in (float("nan"), True):
        with pytest.raises(ValueError, match=f"gamma must be a finite number; got {gamma}"):
            OrthogonalityPenalty(encoder(), gamma=gamma)
    assert OrthogonalityPenalty(encoder(), gamma=np.float32(0.5)).gamma == 0.5
    with pytest.raises(TypeError, match="warm_start must be True or False; got 'no'"):
        OrthogonalityPenalty(encoder(), "srip", warm_start="no")
    for scale in (float("inf"), "2"):
        with pytest.raises(ValueError, match=f"scale must be a finite number; got {scale!r}"):
            OrthogonalityPenalty(encoder()).accumulate_gradients(scale)
    with pytest.raises(ValueError, match="warm_start makes the start vectors, so a generator has nothing to draw"):
        OrthogonalityPenalty(encoder(), "srip", warm_start=True, generator=torch.Generator())


def test_bad_weights_are_named():
    model = encoder()
    model[6].weight = nn.Parameter(torch.ones(5, 6, dtype=torch.int64), requires_grad=False)
    with pytest.raises(TypeError, match=r"6.weight has dtype torch.int64; .*; `exclude` leaves it out"):
        OrthogonalityPenalty(model)
    with torch.device("meta"):
        meta = encoder()
    with pytest.raises(ValueError, match=r"0.weight is on the meta device"):
        OrthogonalityPenalty(meta)
    with pytest.raises(ValueError, match="weight is not initialized yet; run one batch"):
        OrthogonalityPenalty(nn.LazyLinear(3))


def test_shared_weights_count_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    assert OrthogonalityPenalty(model).names == ("0.weight",)


def test_a_layer_alone_and_parametrized_layers():
    layer = nn.Linear(6, 4)
    assert OrthogonalityPenalty(layer).names == ("weight",)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(6, 4))
    penalty = OrthogonalityPenalty(nn.Sequential(normed), gamma=1.0)
    value = penalty()
    assert value.item() == pytest.approx(soft_orthogonality([normed.weight]).item())
    value.backward()
    assert normed.parametrizations.weight.original1.grad is not None


def test_the_encoder_is_referred_to_not_owned():
    model = nn.Module()
    model.encoder = encoder()
    before = set(model.state_dict())
    model.penalty = OrthogonalityPenalty(model.encoder)
    assert set(model.state_dict()) == before
    assert not list(model.penalty.parameters())


def test_report(backend):
    model = encoder()
    with torch.no_grad():
        model[6].weight.copy_(torch.eye(5, 6))
    report = OrthogonalityPenalty(model, gamma=2.0).report()
    rows = {row.name: row for row in report}
    assert len(report) == 4
    assert rows["2.weight"].view.shape == (4, 2, 18)
    linear = rows["6.weight"]
    assert (linear.value, linear.largest, linear.smallest) == (0, 1, 1)
    assert linear.effective_rank == pytest.approx(5)
    spectrum = torch.linalg.svdvals(model[0].weight.detach().double().flatten(1))
    assert rows["0.weight"].largest == pytest.approx(spectrum[0].item())
    assert rows["0.weight"].value == pytest.approx(((spectrum**2 - 1) ** 2).sum().item(), rel=1e-5)
    text = str(report)
    assert "4 x (2 x 18)" in text
    assert f"weighted {report.total:.6g}" in text


@pytest.mark.parametrize("options", [{"kind": "so", "every": 3}, {"kind": "srip", "seed": 1, "warm_start": True}])
def test_values_are_those_of_the_report_and_looking_changes_nothing(options):
    model = encoder()
    penalty, other = (OrthogonalityPenalty(model, gamma=2.0, **options) for _ in range(2))
    for _ in range(2):
        assert penalty.penalty().item() == other.penalty().item()
        assert penalty.values() == {row.name: row.value for row in penalty.report()}
        assert penalty.training
    assert list(penalty.values()) == list(penalty.names)


def test_report_names_layers_that_are_not_finite(backend):
    model = encoder()
    with torch.no_grad():
        model[2].weight[1, 0, 0, 0] = float("nan")
    penalty = OrthogonalityPenalty(model)
    assert penalty().isnan()
    report = penalty.report()
    assert report.non_finite == ["2.weight"]
    assert "NaN or Inf in: 2.weight" in str(report)


def test_looking_changes_nothing():
    """Neither making a penalty nor its report moves the random state that training draws from."""
    state = torch.get_rng_state()
    report = OrthogonalityPenalty(encoder_without_draws(state), "srip").report()
    assert torch.equal(state, torch.get_rng_state())
    assert all(row.value > 0 for row in report)


def encoder_without_draws(state):
    model = encoder()
    torch.set_rng_state(state)
    return model


def test_repr_says_what_is_covered():
    text = repr(OrthogonalityPenalty(encoder(), "srip", gamma=1e-3, iterations=4, warm_start=True))
    assert "kind='srip', gamma=0.001, iterations=4\n" in text
    assert "(start): WarmStart(" in text
    assert "covers 4 weights" in text
    assert "0.weight, 2.weight, 3.weight, 6.weight" in text


def test_gradients_of_another_dtype_than_their_weights(backend):
    """Gradients in float32 of weights in bfloat16, as torch allows: as the penalty in the loss adds them."""
    found = []
    for in_loss in (True, False):
        torch.manual_seed(0)
        layer = nn.Linear(8, 6).bfloat16()
        layer.weight.grad_dtype = torch.float32
        penalty = OrthogonalityPenalty(layer, gamma=1.0)
        for _ in range(2):  # where there is none yet, and where there is one
            penalty().backward() if in_loss else penalty.accumulate_gradients()
        assert layer.weight.grad.dtype == torch.float32
        found.append(layer.weight.grad)
    torch.testing.assert_close(*found, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("moved", [True, False], ids=["with its model", "left behind"])
def test_follows_the_model_to_another_dtype(backend, moved):
    model = encoder()
    penalty = OrthogonalityPenalty(model, "srip", gamma=1.0, warm_start=True)
    model.double()
    if moved:
        penalty.double()
    assert penalty().dtype == torch.float64


@pytest.mark.parametrize("call", ["penalty", "accumulate_gradients", "report"])
@pytest.mark.parametrize("kind", ["so", "srip"])
def test_a_weight_without_storage_is_named(backend, kind, call):
    """FSDP1 leaves weights so between uses."""
    model = encoder()
    penalty = OrthogonalityPenalty(model, kind)
    before = {name: value.clone() for name, value in penalty.state_dict().items()}
    model[2].weight.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match=r"2\.weight has no storage, but its shape and strides need 576 bytes"):
        getattr(penalty, call)()
    assert penalty.training
    assert penalty.state_dict() == before
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("call", ["penalty", "accumulate_gradients", "report", "weights"])
@pytest.mark.parametrize(
    "computed",
    [
        lambda layer: nn.utils.prune.l1_unstructured(layer, "weight", 0.5),
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.orthogonal,
    ],
)
def test_a_computed_weight_without_storage_is_not_read(call, computed):
    layer = computed(nn.Linear(6, 4))
    penalty = OrthogonalityPenalty(layer)
    for parameter in layer.parameters():
        if parameter.dim() == 2:
            parameter.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match=r"a parameter of which weight of .*Linear is computed has no storage"):
        getattr(penalty, call)()


def test_a_gradient_without_storage_is_named(backend):
    model = encoder()
    penalty = OrthogonalityPenalty(model)
    penalty.accumulate_gradients()
    model[2].weight.grad.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match=r"2\.weight\.grad has no storage"):
        penalty.accumulate_gradients()
