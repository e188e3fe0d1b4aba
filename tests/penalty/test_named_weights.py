"""A penalty of named parameters: given as a dict, as pairs, as a list, or in a ParameterDict, without a model."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from truth import so_from_spectrum

from ortho_kernels import OrthogonalityPenalty, soft_orthogonality


def model():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5)).double()


def truth(weights):
    return sum(so_from_spectrum(weight.detach().flatten(1)) for weight in weights)


def parameter_dict(encoder):
    return nn.ParameterDict({name.replace(".", "_"): parameter for name, parameter in encoder.named_parameters()})


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (lambda m: dict(m.named_parameters()), ("0.weight", "3.weight")),
        (lambda m: m.named_parameters(), ("0.weight", "3.weight")),
        (lambda m: list(m.named_parameters()), ("0.weight", "3.weight")),
        (lambda m: list(m.parameters()), ("0", "4")),
        (lambda m: m.parameters(), ("0", "4")),
        (lambda m: nn.ParameterList(m.parameters()), ("0", "4")),
        (parameter_dict, ("0_weight", "3_weight")),
        (lambda m: {name: p.detach() for name, p in m.named_parameters()}, ("0.weight", "3.weight")),
    ],
    ids=["dict", "pairs", "list of pairs", "list", "iterator", "ParameterList", "ParameterDict", "tensors"],
)
def test_what_is_given_is_covered(given, names):
    encoder = model()
    penalty = OrthogonalityPenalty(given(encoder), gamma=1.0)
    penalty.refresh()  # an iterator is not consumed again
    assert penalty.names == names
    torch.testing.assert_close(penalty().detach(), truth([encoder[0].weight, encoder[3].weight]))
    assert (
        "a vector, no matrix" in penalty.uncovered[names[0].replace("weight", "bias") if "weight" in names[0] else "1"]
    )
    assert len(penalty.uncovered) == 4


def test_names_select():
    encoder = model()
    named = dict(encoder.named_parameters())
    for choice in (
        {"include": "0.*"},
        {"exclude": encoder[3].weight},
        {"include": lambda name, weight: weight.dim() == 4},
    ):
        assert OrthogonalityPenalty(named, **choice).names == ("0.weight",)
    [(_, _, count)] = OrthogonalityPenalty({"attn.qkv": torch.randn(6, 4)}, split_qkv="attn.qkv").weights()
    assert count == 3
    [(_, _, count)] = OrthogonalityPenalty({"attn.q": torch.randn(6, 4)}, split_heads={"attn.*": 2}).weights()
    assert count == 2


def test_bare_vectors_and_norms_are_left_out_with_a_reason():
    encoder = model()
    uncovered = OrthogonalityPenalty(encoder.named_parameters()).uncovered
    assert uncovered["1.weight"] == "of shape (4,): a vector, no matrix"
    with pytest.raises(ValueError, match=r"no named parameter is left to penalize: b: of shape \(4,\): a vector"):
        OrthogonalityPenalty({"b": torch.zeros(4)})


def test_three_dimensions_are_a_batch_where_batch_dims_says_so():
    T = torch.randn(3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(OrthogonalityPenalty([T], gamma=1.0)(), soft_orthogonality([T]))
    batch = OrthogonalityPenalty({"T": T}, gamma=1.0, batch_dims={"T": 1})
    torch.testing.assert_close(batch(), truth(T))


@pytest.mark.parametrize("kind", ["so", "srip"])
def test_a_training_loop_moves_the_parameters(kind):
    encoder = model()
    named = OrthogonalityPenalty(
        encoder.named_parameters(), kind, gamma=0.1, **({"warm_start": True} if kind == "srip" else {})
    )
    first = named().item()
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    for step in range(40):
        optimizer.zero_grad()
        if step % 2:
            named().backward()
        else:
            named.accumulate_gradients()
        optimizer.step()
    assert named().item() < first
    state = named.state_dict()
    again = OrthogonalityPenalty(
        encoder.named_parameters(), kind, gamma=0.1, **({"warm_start": True} if kind == "srip" else {})
    )
    again.load_state_dict(state)
    assert torch.equal(again(), named())


def test_gradients_are_those_of_the_module():
    encoder = model()
    OrthogonalityPenalty(encoder).accumulate_gradients()
    expected = [p.grad for p in encoder.parameters()]
    encoder.zero_grad()
    OrthogonalityPenalty(encoder.parameters()).accumulate_gradients()
    for parameter, gradient in zip(encoder.parameters(), expected, strict=True):
        assert (parameter.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(parameter.grad, gradient)


def test_a_copy_has_the_parameters_of_the_copied_model():
    encoder = model()
    pair = nn.ModuleDict({"encoder": encoder, "penalty": OrthogonalityPenalty(encoder.named_parameters(), gamma=1.0)})
    other = copy.deepcopy(pair)
    nn.init.zeros_(other["encoder"][0].weight)
    assert other["penalty"]().item() != pair["penalty"]().item()
    torch.testing.assert_close(pair["penalty"]().detach(), truth([encoder[0].weight, encoder[3].weight]))


def test_it_is_compiled_whole():
    encoder = model()
    penalty = OrthogonalityPenalty(encoder.named_parameters(), gamma=1.0)
    compiled = torch.compile(lambda: 2 * penalty(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(), 2 * penalty())


@pytest.mark.parametrize("option", ["include", "exclude", "extra"])
@pytest.mark.parametrize("given", [nn.Linear, [nn.Linear(2, 2)]], ids=["type", "module"])
def test_modules_and_their_types_do_not_apply(option, given):
    with pytest.raises(TypeError, match=rf"{option} was given .*Linear, but named parameters have no modules"):
        OrthogonalityPenalty(model().named_parameters(), **{option: given})


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (torch.randn(3, 3), TypeError, r"got one tensor: wrap it, \[weight\]"),
        (7, TypeError, "named parameters or a list of parameters; got 7"),
        ("encoder", TypeError, "got 'encoder'"),
        ([], ValueError, "no parameters: it is empty, or an iterator that was consumed before"),
        ([nn.Linear(2, 2)], TypeError, r"it holds Linear\("),
        ({0: torch.randn(3, 3)}, TypeError, r"it holds \(0, tensor"),
        ({"a": {"b": torch.zeros(3, 3)}}, TypeError, r"it holds \('a', {'b': tensor\(\[\[0\., 0\., 0\.\], \[.*\.\.\.$"),
        ([np.zeros((3, 3))], TypeError, r"it holds array\(\[\[0\., 0\., 0\.\], \[.*\]\)$"),
        ([("a", torch.randn(2, 2)), ("a", torch.randn(2, 2))], ValueError, "two parameters of the name 'a'"),
    ],
)
def test_anything_else_is_refused(given, error, words):
    with pytest.raises(error, match=words):
        OrthogonalityPenalty(given)


class Router(nn.Module):
    """Bare parameters of every kind that a module can have."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 8))
        self.lists = nn.ParameterList([torch.randn(3, 8)])
        self.dicts = nn.ParameterDict({"a": torch.randn(2, 8)})
        self.rnn = nn.GRU(8, 4)
        self.body = nn.Linear(8, 8)


@pytest.mark.parametrize("name", ["weight", "lists.0", "dicts.a", "rnn.weight_ih_l0"])
def test_include_of_a_bare_parameter_says_how_to_have_it(name):
    with pytest.raises(
        ValueError, match=r"not covered: .*`extra` adds it; include narrows .*: give both to cover these alone"
    ):
        OrthogonalityPenalty(Router(), include=name)
    assert OrthogonalityPenalty(Router(), extra=name).names == tuple(
        own for own, _ in Router().named_parameters() if own in (name, "body.weight")
    )
    assert OrthogonalityPenalty(Router(), include=name, extra=name).names == (name,)
