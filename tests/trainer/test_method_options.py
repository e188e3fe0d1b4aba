"""What options make of a method: its heads, its prototypes, the rate of its predictor, the network that is judged."""

import pytest
import torch
from small_methods import backbone_of, build, views_of
from torch import nn

from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.methods import METHODS
from ortho_kernels.trainer.options import option_of


def test_prototypes_that_are_normalized_in_place_have_length_one_after_every_step():
    method = build("swav", normalize_in_place=True)
    weight = method.prototypes.weight
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(len(weight)))
    method(views_of(method)).loss.backward()
    along = (weight * weight.grad).sum(1)
    assert along.abs().max() > 1e-4  # a plain layer's gradient, which may change lengths
    with torch.no_grad():
        weight -= weight.grad
    method.after_step(0, 100)
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(len(weight)))


def test_the_heads_of_mocov3_end_as_its_authors_do():
    for layers, prediction_norm in ((2, False), (3, True)):
        method = build("mocov3", layers=layers, prediction_norm=prediction_norm)
        assert len(linears_of(method.projector)) == layers
        assert all(layer.bias is None for head in (method.projector, method.predictor) for layer in linears_of(head))
        norms = [[layer.affine for layer in norms_of(head)] for head in (method.projector, method.predictor)]
        assert norms == [[True] * (layers - 1) + [False], [True, *[False] * prediction_norm]]


def linears_of(head):
    return [layer for layer in head.modules() if isinstance(layer, nn.Linear)]


def norms_of(head):
    return [layer for layer in head.modules() if isinstance(layer, nn.BatchNorm1d)]


def test_simclrs_projector_can_do_without_batch_norms():
    assert len(norms_of(build("simclr").projector)) == 2
    assert not norms_of(build("simclr", batch_norm=False).projector)


def test_simsiams_predictor_can_keep_its_rate():
    assert build("simsiam").constant_rate_modules() == []
    method = build("simsiam", constant_predictor_rate=True)
    assert method.constant_rate_modules() == [method.predictor]


VIEWS = {"one": 1, "two": 2, "asymmetric": 2, "multicrop": 5}  # kinds, and how many views of a picture that is


@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_the_views_that_it_declares(name):
    method, views = build(name), views_of(build("dino"))
    for kind in option_of(method.Settings, "views").values:
        assert method(views[: VIEWS[kind]]).loss.isfinite()


@pytest.mark.parametrize(
    ("name", "kind", "accepted"),
    [
        ("simclr", "one", "one of two, asymmetric"),
        ("byol", "multicrop", "one of two, asymmetric"),
        ("dino", "one", "one of two, asymmetric, multicrop"),
        ("mae", "multicrop", "one"),
    ],
)
def test_other_views_are_refused_before_the_run(tiny, name, kind, accepted):
    with pytest.raises(TrainerError) as error:
        tiny(f"method={name}", backbone_of(name), f"method.views={kind}")
    assert str(error.value) == f"method.views must be {accepted}; got {kind}."


@pytest.mark.parametrize("name", METHODS)
def test_the_network_that_is_judged(name):
    method = build(name)
    assert method.network("student") is method.encoder
    if hasattr(method, "teacher"):
        assert shapes(method.network("teacher")) == shapes(method.encoder)
        assert not any(parameter.requires_grad for parameter in method.network("teacher").parameters())
    else:
        with pytest.raises(TrainerError, match=f"{METHODS[name].__name__} has no teacher"):
            method.network("teacher")


def shapes(module):
    return {name: parameter.shape for name, parameter in module.named_parameters()}
