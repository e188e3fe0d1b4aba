"""Tensors are recognized by their looks: each of these differences is noticed, in one call for all."""

import pytest
import torch
from torch import nn

from ortho_kernels import likeness as module
from ortho_kernels.likeness import likeness


class Labeled(torch.Tensor):
    pass


def given():
    return [torch.randn(3, 5), nn.Parameter(torch.randn(4, 2, 3, 3))]


OTHERS = {
    "another shape": lambda: torch.randn(3, 6),
    "another dimension": lambda: torch.randn(3, 5, 1),
    "no entries": lambda: torch.randn(0, 5),
    "other strides": lambda: torch.randn(5, 3).t(),
    "the stride of a dimension of one": lambda: torch.randn(3, 10)[:, ::2],
    "another dtype": lambda: torch.randn(3, 5, dtype=torch.float64),
    "another device": lambda: torch.randn(3, 5, device="meta"),
    "another layout": lambda: torch.randn(3, 5).to_sparse(),
    "a parameter": lambda: nn.Parameter(torch.randn(3, 5), requires_grad=False),
    "a subclass": lambda: torch.randn(3, 5).as_subclass(Labeled),
    "a gradient": lambda: torch.randn(3, 5, requires_grad=True),
    "negated when read": lambda: torch._neg_view(torch.randn(3, 5)),
    "no tensor": lambda: None,
}


def test_what_looks_alike():
    looks_alike = likeness(given())
    assert looks_alike(*given())
    assert likeness([])()


@pytest.mark.parametrize("other", OTHERS)
def test_what_differs(other):
    first, last = given()
    assert not likeness([first, last])(OTHERS[other](), last)


def test_a_tensor_given_twice():
    first, second = torch.randn(3, 5), torch.randn(3, 5)
    assert not likeness([first, second])(first, first)


def test_a_parameter_whose_data_is_replaced():
    parameter = nn.Parameter(torch.randn(5, 5))
    looks_alike, data = likeness([parameter]), parameter.data
    parameter.data = data.t()
    assert not looks_alike(parameter)
    parameter.data = data
    assert looks_alike(parameter)
    parameter.requires_grad_(False)
    assert not looks_alike(parameter)


def test_within_a_transform():
    tensor = torch.randn(3, 5)
    outside, answers = likeness([tensor]), []

    def penalty(inner):
        answers.extend((outside(inner), likeness([inner])(inner), likeness([inner])(tensor)))
        return inner.sum()

    torch.func.grad(penalty)(tensor)
    assert answers == [False, True, False]


def test_a_torch_that_can_not_be_asked(monkeypatch):
    monkeypatch.setattr(module, "TensorGuards", None)
    tensors = given()
    assert not likeness(tensors)(*tensors)
