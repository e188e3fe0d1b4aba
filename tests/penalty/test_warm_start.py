"""SRIP's kept vectors: they converge over the steps, move with the model, and survive checkpoints and changes of it."""

import copy
import warnings

import pytest
import torch
from torch import nn

from ortho_kernels import OrthogonalityPenalty, srip


def encoder():
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Conv2d(4, 6, 3, groups=2))


def warm(model, **options):
    return OrthogonalityPenalty(model, "srip", gamma=1.0, warm_start=True, **options)


def test_goes_on_where_the_last_step_ended(backend):
    """Ten steps of two applications are one of twenty."""
    model = nn.Linear(60, 40)
    penalty = warm(model)
    [start] = [vector.clone() for vector in penalty.start.state_dict().values()]
    for _ in range(10):
        last = penalty()
    truth = srip([model.weight.double()], start=[start[None]], iterations=20)
    torch.testing.assert_close(last.double(), truth, rtol=1e-5, atol=0)
    penalty.eval()
    assert penalty() == penalty()  # evaluation moves nothing


def test_gradients_without_a_graph_move_the_vectors_alike(backend):
    model = encoder()
    one, other = warm(model), warm(model)
    for _ in range(3):
        assert one().item() == pytest.approx(other.accumulate_gradients().item(), rel=1e-6)
    for left, right in zip(one.start.buffers(), other.start.buffers(), strict=True):
        torch.testing.assert_close(left, right)


def test_survives_an_orthogonal_weight(backend):
    model = nn.Linear(6, 4, bias=False)
    penalty = warm(model)
    with torch.no_grad():
        model.weight.copy_(torch.eye(4, 6))
    assert penalty() == 0
    with torch.no_grad():
        model.weight.mul_(2)
    assert penalty().item() == pytest.approx(3)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_survives_a_weight_that_is_not_finite_for_a_while(backend, number):
    model = encoder()
    penalty, other = moved(model), moved(model)
    good = model[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight[1, 2] = number
    assert not penalty().isfinite()
    with torch.no_grad():
        model[0].weight.copy_(good)
    assert penalty().isfinite()
    assert torch.equal(penalty.state_dict()["start.2/weight"].isfinite(), torch.ones(6, dtype=torch.bool))
    assert penalty.accumulate_gradients().item() == pytest.approx(other().item(), rel=0.2)


def test_a_checkpoint_holds_one_vector_a_weight_by_name():
    model, other = encoder(), encoder()
    penalty, fresh = warm(model), warm(other)
    state = {name: vector.clone() for name, vector in penalty.state_dict().items()}
    assert {name: vector.numel() for name, vector in state.items()} == {"start.0/weight": 5, "start.2/weight": 6}
    penalty()
    fresh.load_state_dict(penalty.state_dict())
    other.load_state_dict(model.state_dict())
    assert fresh() == penalty()


def moved(model):
    """A penalty whose vectors have left where they started."""
    penalty = warm(model)
    penalty()
    return penalty


@pytest.mark.parametrize(
    ("change", "strict_error"),
    [
        (lambda state: state.pop("start.0/weight"), 'Missing key.*"start.0/weight"'),
        (lambda state: state.update({"start.head/weight": torch.ones(3)}), 'Unexpected key.*"start.head/weight"'),
        (lambda state: state.update({"start.0/weight": torch.ones(3)}), "size mismatch for start.0/weight"),
    ],
    ids=["missing", "unexpected", "another size"],
)
def test_vectors_that_do_not_fit(change, strict_error):
    model = encoder()
    state = moved(model).state_dict()
    change(state)
    first = warm(model).state_dict()
    penalty = moved(model)
    with pytest.raises(RuntimeError, match=strict_error):
        penalty.load_state_dict(dict(state))
    with pytest.warns(UserWarning, match="warm start") as caught:
        penalty.load_state_dict(dict(state), strict=False)
    assert len(caught) == 1
    for name, vector in penalty.state_dict().items():
        kept = name in state and state[name].shape == vector.shape
        assert torch.equal(vector, state[name] if kept else first[name])


def test_a_swapped_head_loads_beside_its_model():
    """The penalty as a part of a model whose head has the same name and another size."""

    def build(classes):
        model = nn.ModuleDict({"body": nn.Linear(8, 8), "head": nn.Linear(8, classes)})
        model["penalty"] = warm(model)
        return model

    source, target = build(5), build(3)
    source["penalty"]()
    state = {name: value for name, value in source.state_dict().items() if not name.startswith("head.")}
    with pytest.warns(UserWarning, match=r"no fitting vectors for \['head/weight'\]"):
        target.load_state_dict(state, strict=False)
    kept, own = "penalty.start.body/weight", "penalty.start.head/weight"
    assert torch.equal(target.state_dict()[kept], source.state_dict()[kept])
    assert torch.equal(target.state_dict()[own], build(3).state_dict()[own])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(5).load_state_dict(source.state_dict(), strict=False)


def test_a_new_layer_starts_fresh_and_the_others_go_on():
    model = encoder()
    penalty = moved(model)
    before = penalty.start.state_dict()["0/weight"].clone()
    model.append(nn.Linear(6, 3))
    penalty.eval()()
    state = penalty.start.state_dict()
    assert set(state) == {"0/weight", "2/weight", "3/weight"}
    assert torch.equal(state["0/weight"], before)
    assert torch.equal(state["3/weight"], warm(model).start.state_dict()["3/weight"])


def test_a_strict_resume_after_a_change_of_the_model():
    def build():
        model = nn.ModuleDict({"encoder": encoder()})
        model["penalty"] = warm(model["encoder"])
        model["encoder"].append(nn.Linear(6, 3))
        return model

    source, target = build(), build()
    source["penalty"]()
    target.load_state_dict(source.state_dict())
    assert target["penalty"]() == source["penalty"]()


def test_a_change_that_inference_meets_first():
    model = encoder()
    penalty = moved(model)
    model.append(nn.Linear(6, 3))
    with torch.inference_mode():
        penalty()
    assert penalty() > 0


def test_deferred_initialization():
    def build():
        model = nn.ModuleDict({"encoder": encoder()})
        model["penalty"] = warm(model["encoder"])
        return model

    source = build()
    source["penalty"]()
    target = build().to("meta").to_empty(device="cpu")
    target.load_state_dict(source.state_dict())
    assert target["penalty"]() == source["penalty"]()


def test_names_that_buffers_could_not_have():
    model = nn.Module()
    model.add_module("a/b", nn.Linear(6, 5))
    model.a = nn.ModuleDict({"b": nn.Linear(3, 4)})
    model.values = nn.Parameter(torch.randn(3, 3))
    penalty = warm(model, extra="values")
    penalty()
    sizes = {name: vector.numel() for name, vector in penalty.state_dict().items()}
    assert sizes == {"start./values": 3, "start.a//b/weight": 5, "start.a/b/weight": 3}


def test_copies_and_dtypes():
    model = nn.ModuleDict({"encoder": encoder()})
    model["penalty"] = warm(model["encoder"])
    twin = copy.deepcopy(model)
    assert twin["penalty"].encoder is twin["encoder"]
    for _ in range(2):
        value = model["penalty"]()
        assert twin["penalty"]() == value
    twin.double()
    assert twin["penalty"]().dtype == torch.float64
    assert twin["penalty"]().item() == pytest.approx(model["penalty"]().item(), rel=0.1)
    twin["penalty"].half()
    twin["encoder"].append(nn.Linear(6, 3))  # its vectors have another dtype than the others
    assert twin["penalty"]() > 0


def test_compiles_whole_and_exports_no_names_that_break():
    model = encoder()
    penalty, eager = warm(model), warm(model)
    step = torch.compile(penalty, fullgraph=True, backend="aot_eager")
    for _ in range(3):
        torch.testing.assert_close(step(), eager())


def test_a_state_is_that_of_the_model_as_it_is_now():
    model = encoder()
    penalty = moved(model)
    model[0] = nn.Linear(6, 3)
    state = penalty.state_dict()
    assert state["start.0/weight"].numel() == 3
    warm(model).load_state_dict(state)
