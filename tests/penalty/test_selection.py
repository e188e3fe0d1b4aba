"""What a penalty covers: by default, by what a user adds and takes away, and after the model has changed."""

import copy
import logging
import sys

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from ortho_kernels import OrthogonalityPenalty, soft_orthogonality


class Router(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 8))
        self.experts = nn.Parameter(torch.randn(4, 8, 8))


class Model(nn.Module):
    """A layer of each kind that other people's models have."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.rnn = nn.LSTM(8, 6)
        self.cell = nn.GRUCell(8, 6)
        self.norm = nn.LayerNorm((4, 8))
        self.router = Router()
        self.adapter = nn.ParameterDict({"a": nn.Parameter(torch.randn(3, 8))})
        self.body = nn.Linear(8, 8)
        self.head = nn.Linear(8, 10)


def named(parameters):
    return {name for name, *_ in parameters}


def test_everything_else_has_a_reason():
    model = Model()
    penalty = OrthogonalityPenalty(model)
    assert penalty.names == ("body.weight", "head.weight")
    assert penalty.uncovered == {
        "embed.weight": "Embedding table",
        "rnn.weight_ih_l0": "LSTM weight; `extra` adds it",
        "rnn.weight_hh_l0": "LSTM weight; `extra` adds it",
        "cell.weight_ih": "GRUCell weight; `extra` adds it",
        "cell.weight_hh": "GRUCell weight; `extra` adds it",
        "norm.weight": "LayerNorm parameter",
        "norm.bias": "LayerNorm parameter",
        "router.weight": "Router parameter, no layer known here; `extra` adds it",
        "router.experts": "Router parameter of 3 dimensions; if it is a batch of matrices, `batch_dims` adds it",
        "adapter.a": "ParameterDict entry; `extra` adds it",
    }
    matrices = {name for name, parameter in model.named_parameters() if parameter.dim() >= 2}
    assert matrices == set(penalty.names) | set(penalty.uncovered)
    assert "not covered: router.weight, Router parameter" in str(penalty.report())
    assert "router.experts: Router parameter of 3 dimensions" in repr(penalty)


@pytest.mark.parametrize(
    ("extra", "added"),
    [
        ("router.weight", {"router.weight"}),
        (["rnn.*", "adapter.a"], {"rnn.weight_ih_l0", "rnn.weight_hh_l0", "adapter.a"}),
        (nn.LSTM, {"rnn.weight_ih_l0", "rnn.weight_hh_l0"}),
        ([nn.ParameterDict, nn.Embedding], {"adapter.a", "embed.weight"}),
        (lambda name, weight: name.startswith("cell") and weight.shape[1] == 6, {"cell.weight_hh"}),
        ("body.weight", set()),
    ],
    ids=["name", "patterns", "type", "types", "callable", "covered already"],
)
def test_extra_adds(extra, added):
    model = Model()
    penalty = OrthogonalityPenalty(model, gamma=1.0, extra=extra)
    assert set(penalty.names) == {"body.weight", "head.weight"} | added
    assert not added & set(penalty.uncovered)
    own = dict(model.named_parameters())
    torch.testing.assert_close(penalty(), soft_orthogonality([own[name] for name in penalty.names]))


def test_extra_by_the_name_of_a_container_takes_its_own_parameters_alone():
    model = nn.ModuleDict({"a": Model(), "b": nn.Linear(3, 3)})
    with pytest.raises(ValueError, match="extra pattern 'a' matches none"):
        OrthogonalityPenalty(model, extra="a")


def test_extra_adds_parameters_and_modules():
    model = Model()
    assert "router.weight" in OrthogonalityPenalty(model, extra=model.router.weight).names
    assert "adapter.a" in OrthogonalityPenalty(model, extra=[model.adapter, model.cell.weight_hh]).names


def test_a_vector_in_many_dimensions_is_no_batch():
    model = nn.Sequential(nn.Linear(4, 3))
    model.scale = nn.Parameter(torch.ones(16, 1, 1))
    assert OrthogonalityPenalty(model).uncovered == {"scale": "Sequential parameter of shape (16, 1, 1): a vector"}
    with pytest.raises(ValueError, match=r"extra can't add scale: .* a vector"):
        OrthogonalityPenalty(model, extra="scale")


def test_a_penalty_on_frozen_weights_alone_says_so(caplog):
    model = nn.Linear(4, 3).requires_grad_(False)
    with caplog.at_level(logging.WARNING, "ortho_kernels"):
        OrthogonalityPenalty(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)))
        assert not caplog.messages
        penalty = OrthogonalityPenalty(model)
    assert "no weight that the penalty covers requires a gradient" in caplog.text
    assert penalty.accumulate_gradients() == penalty()


def test_packed_weights_are_listed():
    float_model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    model = torch.ao.quantization.quantize_dynamic(float_model, {"1"}, torch.qint8)
    penalty = OrthogonalityPenalty(model)
    assert penalty.names == ("0.weight",)
    assert penalty.uncovered == {"1.weight": "packed by quantization"}


def test_a_linear_layer_of_many_matrices_is_a_batch():
    class Experts(nn.Linear):
        def __init__(self):
            super().__init__(4, 5)
            self.weight = nn.Parameter(torch.randn(3, 5, 4))

    penalty = OrthogonalityPenalty(nn.Sequential(Experts(), nn.Linear(4, 4)))
    assert penalty.names == ("1.weight",)
    assert "Experts parameter of 3 dimensions; if it is a batch of matrices" in penalty.uncovered["0.weight"]


def test_a_module_on_two_paths_is_known_by_both():
    model = nn.Module()
    model.backbone = nn.Sequential(nn.Linear(6, 5))
    model.online = nn.Sequential(model.backbone, nn.Linear(5, 4))
    both = ("backbone.0.weight", "online.1.weight")
    for given in (model.online, "online.*", "online", list(model.online.parameters())):
        assert OrthogonalityPenalty(model, include=given).names == both
    assert OrthogonalityPenalty(model, include="online.0.0").names == both[:1]
    assert OrthogonalityPenalty(model, exclude="online.0.*").names == both[1:]


def test_extra_refuses_batches_of_matrices():
    for extra in ("router.experts", Router):
        with pytest.raises(
            ValueError,
            match=r"extra can't add router.experts: .*, `batch_dims` adds it",
        ):
            OrthogonalityPenalty(Model(), extra=extra)


def test_include_and_exclude_take_more_than_patterns():
    model = Model()
    for given in (model.head, model.head.weight, list(model.head.parameters()), lambda name, _: "head" in name, "head"):
        assert OrthogonalityPenalty(model, exclude=given).names == ("body.weight",)
        assert OrthogonalityPenalty(model, include=given).names == ("head.weight",)
    layer = nn.TransformerEncoderLayer(8, 2, 16)
    assert named(OrthogonalityPenalty(layer, exclude=nn.MultiheadAttention).weights()) == {
        "linear1.weight", "linear2.weight"
    }  # fmt: skip
    excluded = OrthogonalityPenalty(model, exclude="head").uncovered["head.weight"]
    assert excluded == "left out by `exclude`"


@pytest.mark.parametrize("option", ["include", "exclude", "extra"])
def test_what_is_no_choice_of_weights(option):
    with pytest.raises(TypeError, match=f"{option} takes patterns of names, parameters, modules, .* got a int"):
        OrthogonalityPenalty(Model(), **{option: 3})
    with pytest.raises(ValueError, match=rf"{option}: the tensor of shape \(2, 3\) is no parameter of the encoder"):
        OrthogonalityPenalty(Model(), **{option: torch.ones(2, 3)})
    with pytest.raises(ValueError, match=f"{option} pattern 'nothing' matches none of the weights"):
        OrthogonalityPenalty(Model(), **{option: "nothing"})


def test_include_of_what_the_default_leaves_out_points_to_extra():
    with pytest.raises(ValueError, match=r"matches only weights that are not covered: .*LSTM weight; `extra`"):
        OrthogonalityPenalty(Model(), include="rnn.*")


def test_an_output_layer_tied_to_an_embedding():
    model = Model()
    model.head.weight = model.embed.weight
    penalty = OrthogonalityPenalty(model)
    assert penalty.names == ("body.weight",)
    assert penalty.uncovered["head.weight"] == "tied to the embedding embed.weight"
    assert "head.weight: tied to the embedding embed.weight" in repr(penalty)
    for extra in ("head.weight", "embed.weight"):
        penalty = OrthogonalityPenalty(model, extra=extra)
        assert set(penalty.names) == {"body.weight", extra}
        assert not {"head.weight", "embed.weight"} & set(
            penalty.uncovered
        )  # one weight, covered under one of its names
    prune.random_unstructured(model.head, "weight", 0.3)
    penalty = OrthogonalityPenalty(model)
    assert penalty.names == ("body.weight",)
    assert penalty.uncovered["head.weight"] == "tied to the embedding embed.weight"


class Compiled(nn.Module):
    """What torch.compile, FSDP1 and checkpoint wrappers do to names."""

    def __init__(self, name, module):
        super().__init__()
        self.add_module(name, module)


@pytest.mark.parametrize("wrapper", ["module", "_orig_mod", "_fsdp_wrapped_module", "base_layer"])
def test_patterns_ignore_wrappers(wrapper):
    inner = nn.Sequential(nn.Linear(4, 4), Compiled(wrapper, nn.Linear(4, 3)))
    model = Compiled(wrapper, inner)
    assert OrthogonalityPenalty(model, include="1.weight").names == (f"{wrapper}.1.{wrapper}.weight",)
    assert OrthogonalityPenalty(model, exclude=[f"{wrapper}.0.*"]).names == (f"{wrapper}.1.{wrapper}.weight",)


def test_grouped_convolutions_split_or_whole():
    model = nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.ConvTranspose2d(8, 4, 2, groups=2), nn.Linear(4, 4))
    flat = [layer.weight.flatten(1) for layer in model]
    whole = OrthogonalityPenalty(model, gamma=1.0, groups="whole")
    torch.testing.assert_close(whole(), soft_orthogonality(flat))
    split = OrthogonalityPenalty(model, gamma=1.0)
    torch.testing.assert_close(split(), soft_orthogonality(flat, groups=[4, 2, 1]))
    with pytest.raises(ValueError, match="groups must be one of 'split', 'whole'; got 4"):
        OrthogonalityPenalty(model, groups=4)


def test_grouped_mobilenet_gives_what_released_loops_give():
    models = pytest.importorskip("torchvision").models
    model = models.mobilenet_v2()
    loop = sum(soft_orthogonality([w.flatten(1)]).item() for w in model.parameters() if w.dim() >= 2)
    assert OrthogonalityPenalty(model, gamma=1.0, groups="whole")().item() == pytest.approx(loop, rel=1e-5)


# Weights that are computed


def spectral(layer):
    return parametrizations.spectral_norm(layer)


class Adapted(nn.Module):
    """A low-rank adapter as a parametrization of a frozen weight."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Parameter(torch.randn(4, 2)), nn.Parameter(torch.randn(2, 6))

    def forward(self, weight):
        return weight + self.left @ self.right


def test_a_parametrization_trains_though_its_original_does_not(caplog):
    layer = nn.Linear(6, 4).requires_grad_(False)
    nn.utils.parametrize.register_parametrization(layer, "weight", Adapted())
    with caplog.at_level(logging.WARNING, "ortho_kernels"), torch.no_grad():
        penalty = OrthogonalityPenalty(layer)
    assert not caplog.messages
    penalty.accumulate_gradients()
    assert layer.parametrizations.weight[0].left.grad is not None


def test_looking_for_fused_projections_moves_no_parametrization():
    model = nn.TransformerEncoderLayer(8, 2, 16)
    parametrizations.spectral_norm(model.self_attn, "in_proj_weight")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert OrthogonalityPenalty(model, split_qkv=True).weights()[0][2] == 3
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_looking_moves_no_parametrization():
    model = nn.Sequential(spectral(nn.Linear(6, 4)), nn.utils.spectral_norm(nn.Linear(4, 4)))
    model(torch.randn(2, 6))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    penalty = OrthogonalityPenalty(model)
    repr(penalty)
    penalty.report()
    penalty.weights()
    penalty.refresh()
    penalty()
    penalty.accumulate_gradients()
    assert model.training
    assert all(part.training for part in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not penalty.uncovered


@pytest.mark.parametrize(
    "computed",
    [
        spectral,
        parametrizations.weight_norm,
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        lambda layer: prune.random_unstructured(layer, "weight", 0.3),
    ],
    ids=["spectral_norm", "weight_norm", "legacy weight_norm", "legacy spectral_norm", "prune"],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_gradients_reach_the_parameters_of_a_computed_weight(backend, computed):
    """Between backward and step, where the graph of the forward pass is gone; and after the step, before a forward."""
    model = nn.Sequential(computed(nn.Linear(6, 4)))
    penalty = OrthogonalityPenalty(model, gamma=1.0)
    assert penalty.names == ("0.weight",)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(2):
        model(torch.randn(3, 6)).sum().backward()
        optimizer.zero_grad()
        model.eval()  # a parametrization gives the same weight each time
        in_loss = penalty()
        in_loss.backward()
        expected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        optimizer.zero_grad()
        value = penalty.accumulate_gradients()
        model.train()
        found = [p.grad for p in model.parameters() if p.grad is not None]
        torch.testing.assert_close(found, expected)
        assert value.item() == pytest.approx(in_loss.item(), rel=1e-6)
        optimizer.step()


def test_a_pruned_weight_is_the_one_after_the_step():
    layer = prune.random_unstructured(nn.Linear(6, 4), "weight", 0.3)
    penalty = OrthogonalityPenalty(layer, gamma=1.0)
    with torch.no_grad():
        layer.weight_orig.mul_(2)
    now = layer.weight_orig * layer.weight_mask
    assert penalty().item() == pytest.approx(soft_orthogonality([now]).item(), rel=1e-6)


# Models that change


def test_a_new_head_is_covered_and_said(caplog):
    model = Model()
    penalty = OrthogonalityPenalty(model)
    model.classifier = nn.Linear(10, 3)
    del model.head
    with caplog.at_level(logging.WARNING, "ortho_kernels"):
        penalty()
    assert penalty.names == ("body.weight", "classifier.weight")
    [line] = caplog.messages
    assert "covers classifier.weight too, no longer head.weight" in line
    caplog.clear()
    penalty()
    assert not caplog.messages


@pytest.mark.parametrize("call", ["penalty", "accumulate_gradients", "report", "weights"])
def test_every_call_notices_a_change(call):
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 3)))
    penalty = OrthogonalityPenalty(model)
    model[1][0] = nn.Conv1d(3, 2, 2)
    model[0].register_parameter("adapter", nn.Parameter(torch.randn(2, 2)))
    getattr(penalty, call)()
    assert penalty.weights()[1][1] is model[1][0].weight
    assert "0.adapter" in penalty.uncovered
    parametrizations.weight_norm(model[0])
    getattr(penalty, call)()
    assert "0.parametrizations.weight.original0" not in penalty.uncovered


@pytest.mark.parametrize("given", ["name", "module", "parameters"])
def test_what_is_excluded_stays_excluded_when_it_is_replaced(given):
    model = Model()
    exclude = {"name": "head", "module": model.head, "parameters": list(model.head.parameters())}[given]
    penalty = OrthogonalityPenalty(model, exclude=exclude)
    model.head = nn.Linear(8, 3)
    penalty()
    assert penalty.names == ("body.weight",)


@pytest.mark.parametrize("exclude", ["name", "module", "parameter"])
def test_a_wrapper_that_comes_later_hides_nothing(exclude):
    model = Compiled("module", nn.ModuleDict({"body": nn.Sequential(nn.Linear(3, 3)), "head": nn.Linear(3, 2)}))
    head = model.module["head"]
    given = {"name": "module.head.weight", "module": head, "parameter": head.weight}[exclude]
    penalty = OrthogonalityPenalty(model, exclude=given)
    model.module = Compiled("_orig_mod", model.module)
    model.module._orig_mod["head"] = nn.Linear(3, 4)
    penalty()
    assert penalty.names == ("module._orig_mod.body.0.weight",)
    assert OrthogonalityPenalty(model, exclude="module.head").names == penalty.names


def test_a_module_that_is_called_module_is_no_wrapper():
    model = nn.ModuleDict({"module": nn.Linear(3, 3), "head": nn.Linear(3, 3)})
    assert OrthogonalityPenalty(model, exclude="module.*").names == ("head.weight",)
    assert OrthogonalityPenalty(model, include="module").names == ("module.weight",)


def test_the_object_counts_while_it_is_there():
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)))
    for given in (model[2], model[2].weight):
        rest = nn.Sequential(*model)
        penalty = OrthogonalityPenalty(rest, exclude=given)
        del rest[0]
        penalty()
        assert penalty.names == ("0.weight", "2.weight")


def test_many_of_everything():
    """Parameters, modules and layers by the thousand: each is looked up, none is compared with each."""
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(3000)))
    compared = []

    class Counted(nn.Linear):
        def __eq__(self, other):
            compared.append(other)
            return self is other

        __hash__ = nn.Linear.__hash__

    model.append(Counted(1, 1))
    penalty = OrthogonalityPenalty(model, include=list(model.parameters()), exclude=list(model[1:]))
    assert penalty.names == ("0.weight",)
    assert len(compared) < 10


def test_all_that_takes_the_place_of_what_is_named_is_meant():
    model = Model()
    one, other = OrthogonalityPenalty(model, exclude="head"), OrthogonalityPenalty(model, include=model.head)
    model.head = nn.Sequential(nn.Linear(8, 5), nn.Linear(5, 3))
    assert [name for name, *_ in one.weights()] == ["body.weight"]
    assert [name for name, *_ in other.weights()] == ["head.0.weight", "head.1.weight"]


def test_weights_that_come_and_go_without_a_module():
    model = nn.ModuleList([nn.Linear(3, 3) for _ in range(4)])
    weight, model[1].weight = model[1].weight, None
    penalty = OrthogonalityPenalty(model)
    assert len(penalty.names) == 3
    model[1].weight = weight
    assert len(penalty.weights()) == 4
    del model[4:]  # gives the list another dictionary of modules
    model.append(nn.Linear(3, 2))
    assert len(penalty.weights()) == 5


def test_a_copy_of_a_traced_graph_follows_its_own_changes():
    graph = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)))
    twin = copy.deepcopy(nn.ModuleDict({"encoder": graph, "penalty": OrthogonalityPenalty(graph)}))
    setattr(twin["encoder"], "1", nn.Linear(3, 7))
    assert twin["penalty"].weights()[1][1] is twin["encoder"].get_submodule("1").weight


def test_only_what_the_user_named_is_missed():
    def build(**options):
        model = Model()
        penalty = OrthogonalityPenalty(model, **options)
        model.head, model.router = nn.Identity(), nn.Identity()
        return penalty

    assert build().weights()
    assert build(exclude="head.*").weights()
    for options, words in (
        ({"include": ["body.*", "head.*"]}, r"include pattern 'head.\*' matches none"),
        ({"extra": "router.weight"}, "extra pattern 'router.weight' matches none"),
    ):
        with pytest.raises(ValueError, match=f"the model has changed: {words}"):
            build(**options)()


def test_a_parameter_that_was_named_stays_named_when_its_tensor_is_replaced():
    model = Model()
    penalty = OrthogonalityPenalty(model, exclude=model.head.weight)
    model.head.weight = nn.Parameter(torch.randn(10, 8))
    penalty.refresh()
    assert penalty.names == ("body.weight",)


def test_ties_made_later_need_a_refresh():
    model = Model()
    penalty = OrthogonalityPenalty(model)
    model.head.weight = model.embed.weight
    penalty.refresh()
    assert penalty.names == ("body.weight",)


class Penalized(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 3)
        self.penalty = OrthogonalityPenalty(self, gamma=1.0, **options)

    def forward(self, x):
        return self.head(self.body(x)), self.penalty()


KINDS = [{}, {"kind": "srip"}, {"kind": "srip", "warm_start": True}]


@pytest.mark.parametrize("options", KINDS, ids=["so", "srip", "warm"])
@pytest.mark.parametrize("way", ["at once", "again", "refreshed"])
def test_a_trace_sees_the_model_as_it_is_then(way, options):
    torch._dynamo.reset()
    model, x = Penalized(**options), torch.randn(2, 4)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    if way != "at once":
        compiled(x)
    model.head = nn.Linear(4, 7)
    if way == "refreshed":
        model.penalty.refresh()
    eager = copy.deepcopy(model)
    torch.testing.assert_close(compiled(x), eager(x))


@pytest.mark.parametrize("options", KINDS, ids=["so", "srip", "warm"])
@pytest.mark.parametrize("strict", [False, True])
def test_a_changed_model_is_refreshed_before_it_is_exported(strict, options):
    torch._dynamo.reset()
    model, x = Penalized(**options), torch.randn(2, 4)
    model.head = nn.Linear(4, 7)
    with pytest.raises(RuntimeError, match=r"the model has changed: call penalty.refresh\(\) before it is exported"):
        torch.export.export(model, (x,), strict=strict)
    model.penalty.refresh()
    eager = copy.deepcopy(model)
    exported = torch.export.export(model, (x,), strict=strict).module()
    torch.testing.assert_close(exported(x), eager(x))
    torch.testing.assert_close(model.eval()(x), eager.eval()(x))
    assert all(type(buffer) is torch.Tensor for buffer in model.penalty.buffers())  # nothing fake was left behind


def test_script_of_a_model_that_holds_the_penalty():
    class Holder(nn.Module):
        def __init__(self, **options):
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(4, 3))
            self.penalty = OrthogonalityPenalty(self.encoder, **options)

        def forward(self, x):
            return self.encoder(x)

    x = torch.randn(2, 4)
    for options in KINDS:
        model = Holder(**options)
        torch.testing.assert_close(torch.jit.script(model)(x), model(x))
        torch.testing.assert_close(torch.jit.trace(model, x)(x), model(x))


def test_script_of_a_model_that_calls_it_in_training():
    class Caller(Penalized):
        def forward(self, x):
            y = self.head(self.body(x))
            if self.training:
                y = y + self.penalty()
            return y

    model, x = Caller().eval(), torch.randn(2, 4)
    torch.testing.assert_close(torch.jit.script(model)(x), model(x))


def test_noticing_a_change_runs_no_python_for_each_module():
    """It is asked in every step."""

    def frames(modules):
        penalty = OrthogonalityPenalty(nn.Sequential(*(nn.Linear(1, 1) for _ in range(modules))))
        entered = []
        sys.setprofile(lambda frame, event, _: entered.append(frame) if event == "call" else None)
        try:
            assert not penalty._tree.has_changed()
        finally:
            sys.setprofile(None)
        return len(entered)

    assert frames(3) == frames(300)
