"""What follows from shapes alone is copied to the device once: a copy takes a wait, which a CUDA graph can't capture."""

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ortho_kernels import soft_orthogonality, soft_orthogonality_value_and_grad, srip, srip_value_and_grad, weight_views

WEIGHTS = [torch.randn(4, 6), torch.randn(9, 5), torch.randn(8, 2, 3, 3)]
CALLS = {
    function.__name__: function
    for function in (soft_orthogonality, soft_orthogonality_value_and_grad, srip, srip_value_and_grad)
}


@pytest.fixture(autouse=True)
def no_views(monkeypatch):
    monkeypatch.setattr(weight_views, "_cache", {})
    monkeypatch.setattr(weight_views, "_latest", {})


class Copies(TorchDispatchMode):
    """Counts what a tensor of Python numbers, or one of another device or dtype, is made with."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in (torch.ops.aten.lift_fresh, torch.ops.aten._to_copy):
            self.found.append(function)
        return function(*args, **kwargs or {})


def copies(call):
    with Copies() as mode:
        call()
    return mode.found


def test_copies_are_seen():
    assert copies(lambda: torch.tensor([1.0]))


@pytest.mark.parametrize("side", ["rows", "cols", "small", "large"])
@pytest.mark.parametrize("name", CALLS)
def test_a_second_call_copies_nothing(kernels, name, side):
    weights = [w.to(torch.get_default_device()) for w in WEIGHTS]
    CALLS[name](weights, side=side)
    assert not copies(lambda: CALLS[name](weights, side=side))


@pytest.mark.parametrize("name", ["soft_orthogonality", "soft_orthogonality_value_and_grad"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("first", [1.0, 0.25])
def test_another_factor_or_dtype_has_its_own_constant(kernels, name, dtype, first):
    weights = [w.to(torch.get_default_device(), dtype) for w in WEIGHTS]
    for factor in (first, 3.0):
        options = {"diagonal": factor, "off_diagonal": factor, "reduction": "none"}
        small, cols = (CALLS[name](weights, side=side, **options) for side in ("small", "cols"))
        small, cols = (v[0] if isinstance(v, tuple) else v for v in (small, cols))
        assert cols.dtype == dtype
        torch.testing.assert_close(
            cols - small, factor * torch.tensor([2.0, 0.0, 10.0], dtype=dtype), rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize(
    "context",
    [torch.inference_mode, torch.no_grad, Copies],
    ids=["inference mode", "no grad", "dispatch mode"],
)
def test_a_first_call_elsewhere_leaves_nothing_behind(kernels, context):
    """The constant of a call under a mode serves later calls, with gradients, as one of their own does."""
    weights = [torch.randn(3, 5), torch.randn(7, 2)]
    with context():
        before = soft_orthogonality(weights, side="large")
    leaves = [w.clone().requires_grad_() for w in weights]
    value = soft_orthogonality(leaves, side="large")
    assert value == before
    value.backward()


def test_a_first_call_under_a_transform_or_a_trace_leaves_nothing_behind(kernels):
    weight = torch.randn(3, 17)
    torch.func.grad(lambda w: soft_orthogonality([w], side="large"))(weight)
    with FakeTensorMode(allow_non_fake_inputs=True):
        soft_orthogonality([weight], side="large")
    value = soft_orthogonality([weight], side="large")
    assert type(value) is torch.Tensor
    torch.testing.assert_close(value, soft_orthogonality([weight]) + 14)


@pytest.mark.parametrize("side", ["rows", "cols"])
def test_compiles_into_one_graph(kernels, side):
    leaf = torch.randn(4, 6, requires_grad=True)
    compiled = torch.compile(lambda w: soft_orthogonality([w], side=side), fullgraph=True, backend="aot_eager")
    for _ in range(2):
        torch.testing.assert_close(compiled(leaf), soft_orthogonality([leaf], side=side))
        torch.testing.assert_close(
            soft_orthogonality([leaf], side=side), soft_orthogonality([leaf.detach()], side=side)
        )
    compiled(leaf).backward()
