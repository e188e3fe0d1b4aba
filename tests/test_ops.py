"""The operators as citizens of torch: opcheck, gradcheck, compile, export, autocast, transforms, threads."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensor, FakeTensorMode
from truth import as_matrices, relative, so_gradient

from ortho_kernels import OrthogonalityPenalty, reference, soft_orthogonality, srip, use_backend

OPERATORS = torch.ops.ortho_kernels


def weights(requires_grad=True, dtype=torch.float32):
    shapes = [(6, 3, 3, 3), (5, 12), (12, 5), (4, 1, 2, 2)]
    return [torch.randn(shape, dtype=dtype).requires_grad_(requires_grad) for shape in shapes]


GROUPS, SIDES, ORDERS = [2, 1, 1, 4], [0, 0, 1, 0], [3, 3, 5, 5, 1, 1, 1, 1]


@pytest.fixture(autouse=True)
def _kernels(kernels):
    pass


@pytest.mark.parametrize("requires_grad", [True, False])
def test_opcheck_soft_orthogonality(requires_grad):
    torch.library.opcheck(
        OPERATORS.soft_orthogonality.default,
        (weights(requires_grad), GROUPS, SIDES, 1.0, 0.5, requires_grad),
        test_utils=UTILS,
    )


@pytest.mark.parametrize("requires_grad", [True, False])
@pytest.mark.parametrize("through", [True, False])
def test_opcheck_srip(requires_grad, through):
    start = torch.randn(sum(ORDERS))
    torch.library.opcheck(
        OPERATORS.srip.default,
        (weights(requires_grad), GROUPS, SIDES, start, 3, through, requires_grad),
        test_utils=UTILS,
    )


UTILS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


@pytest.mark.parametrize("accumulate", [True, False])
def test_opcheck_backwards(accumulate):
    factors, given = torch.randn(len(ORDERS)), weights(False)
    triangles, vectors = torch.randn(sum(n * (n + 1) // 2 for n in ORDERS)), torch.randn(2 * 2 * sum(ORDERS))
    for operator, kept, constant, wanted in (
        (OPERATORS.soft_orthogonality_backward, triangles, 0, [1, 0, 1, 1]),
        (OPERATORS.srip_backward, vectors, 2, [1, 1, 0, 1]),
    ):
        gradients = [torch.randn_like(w) for w, want in zip(given, wanted, strict=True) if want]
        arguments = (factors, given, GROUPS, SIDES, kept, constant, gradients, wanted, accumulate)
        torch.library.opcheck(operator.default, arguments, test_utils=UTILS)


def test_gradcheck():
    leaves = weights(dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *w: soft_orthogonality(w, groups=GROUPS, reduction="none"), leaves)
    start = [torch.randn(g, n, dtype=torch.float64) for g, n in zip(GROUPS, [3, 5, 5, 1], strict=True)]
    assert torch.autograd.gradcheck(
        lambda *w: srip(w, groups=GROUPS, start=start, iterations=3, reduction="none"), leaves
    )


@pytest.mark.parametrize("penalty", [soft_orthogonality, srip])
def test_double_backward_says_what_to_do(penalty):
    leaf = torch.randn(4, 6, requires_grad=True)
    (gradient,) = torch.autograd.grad(penalty([leaf]), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match=r"differentiated once.*use_backend\('torch'\)"):
        gradient.sum().backward()


@pytest.mark.parametrize("penalty", [soft_orthogonality, srip])
def test_forward_mode_says_what_to_do(penalty):
    """A tangent that the kernels don't know must not come out as zero."""
    primal, tangent = torch.randn(4, 6), torch.randn(4, 6)
    with pytest.raises(RuntimeError, match=r"no forward-mode derivative.*use_backend\('torch'\)"):
        torch.func.jvp(lambda w: penalty([w]), (primal,), (tangent,))
    with use_backend("torch"):
        _, derivative = torch.func.jvp(lambda w: soft_orthogonality([w]), (primal,), (tangent,))
    truth = (so_gradient(primal.double()) * tangent).sum()
    torch.testing.assert_close(derivative.double(), truth, rtol=1e-5, atol=0)


class Model(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=4), nn.Flatten(), nn.Linear(32, 5)
        )
        self.penalty = OrthogonalityPenalty(self.encoder, kind, gamma=0.1, warm_start=True) if kind == "srip" else (
            OrthogonalityPenalty(self.encoder, kind, gamma=0.1)
        )  # fmt: skip

    def forward(self, x):
        return self.encoder(x).square().sum() + self.penalty()


@pytest.mark.parametrize("kind", ["so", "srip"])
def test_compile_fullgraph(kind):
    model, x = Model(kind).eval(), torch.randn(2, 3, 6, 6)
    truth = model(x)
    truth.backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    value = torch.compile(model, fullgraph=True, backend="aot_eager")(x)
    value.backward()
    torch.testing.assert_close(value, truth)
    for p, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(p.grad, gradient)


@pytest.mark.parametrize("penalty", [soft_orthogonality, srip])
def test_compile_for_sizes_that_change(penalty):
    compiled = torch.compile(
        lambda w, x: penalty([w], **({} if penalty is soft_orthogonality else {"start": [x]})),
        fullgraph=True, backend="aot_eager", dynamic=True,
    )  # fmt: skip
    for out in (4, 6):
        for layout in (torch.contiguous_format, torch.channels_last):
            leaf = torch.randn(out, 2, 3, 3).to(memory_format=layout).requires_grad_()
            start = torch.randn(1, out)
            value = compiled(leaf, start)
            truth = penalty([leaf], **({} if penalty is soft_orthogonality else {"start": [start]}))
            torch.testing.assert_close(value, truth)
            torch.testing.assert_close(*(torch.autograd.grad(v, leaf) for v in (value, truth)))


def test_compile_with_inductor():
    leaf = torch.randn(6, 9, requires_grad=True)
    compiled = torch.compile(lambda w: 2 * soft_orthogonality([w * 1.5]), fullgraph=True)
    (gradient,) = torch.autograd.grad(compiled(leaf), leaf)
    assert relative(gradient, 3 * so_gradient(1.5 * leaf.detach().double())) < 1e-5


@pytest.mark.parametrize("kind", ["so", "srip"])
def test_export(kind):
    model, x = Model(kind).eval(), torch.randn(2, 3, 6, 6)
    program = torch.export.export(model, (x,))
    torch.testing.assert_close(program.module()(x), model(x))
    assert any(
        f"ortho_kernels.{'soft_orthogonality' if kind == 'so' else 'srip'}" in str(n.target)
        for n in program.graph.nodes
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_touch_the_penalty(dtype):
    leaf, start = torch.randn(16, 30), [torch.randn(1, 16)]
    plain = soft_orthogonality([leaf]), srip([leaf], start=start)
    with torch.autocast(leaf.device.type, dtype=dtype):
        assert (soft_orthogonality([leaf]), srip([leaf], start=start)) == plain


def test_autocast_does_not_touch_the_torch_backend():
    leaf = torch.randn(16, 30)
    with use_backend("torch"), torch.autocast(leaf.device.type, dtype=torch.bfloat16):
        assert relative(soft_orthogonality([leaf]), reference.soft_orthogonality([leaf.double()])) < 1e-5


@pytest.mark.parametrize("kind", ["so", "srip"])
def test_functional_call(kind):
    model, x = Model(kind).eval(), torch.randn(2, 3, 6, 6)
    before = model(x)
    parameters = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    value = torch.func.functional_call(model, parameters, (x,))
    other = copy.deepcopy(model)
    other.load_state_dict(parameters, strict=False)
    torch.testing.assert_close(value, other(x))
    torch.testing.assert_close(model(x), before)  # and everything is put back


def test_functional_gradients():
    model, x = Model("so").eval(), torch.randn(2, 3, 6, 6)
    parameters = dict(model.named_parameters())
    model(x).backward()
    gradients = torch.func.grad(lambda p: torch.func.functional_call(model, p, (x,)))(parameters)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, parameters[name].grad)


@pytest.mark.parametrize("kind", ["so", "srip"])
def test_copies_are_independent_and_alike(kind):
    model, x = Model(kind).eval(), torch.randn(2, 3, 6, 6)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(other(x), model(x))
        with torch.no_grad():
            other.encoder[0].weight.zero_()
        assert other.penalty() != model.penalty()


def test_weights_changed_in_place_are_noticed():
    leaf = torch.randn(4, 6, requires_grad=True)
    weight = leaf * 1
    value = soft_orthogonality([weight])
    weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_one_operator_forward_and_one_backward():
    from torch.profiler import profile

    leaves = [torch.randn(8, 8 + i, requires_grad=True) for i in range(20)]
    for penalty, name in ((soft_orthogonality, "soft_orthogonality"), (srip, "srip")):
        with profile() as trace:
            penalty(leaves).backward()
        counts = {event.key: event.count for event in trace.key_averages()}
        assert counts[f"ortho_kernels::{name}"] == 1
        assert counts[f"ortho_kernels::{name}_backward"] == 1


def test_gradients_of_weights_without_numbers_have_none():
    """Also outside of the mode that made the weights."""
    with FakeTensorMode():
        weights = [torch.randn(4, 6, requires_grad=True), torch.randn(5, 3, 3, 3, requires_grad=True)]
    gradients = torch.autograd.grad(soft_orthogonality(weights), weights)
    assert {type(gradient) for gradient in gradients} == {FakeTensor}
    assert [gradient.stride() for gradient in gradients] == [weight.stride() for weight in weights]


def test_threads_do_not_change_a_bit():
    leaves = [torch.randn(s, requires_grad=True) for s in [(300, 700), (64, 64, 3, 3), (33, 5), (2000, 40)]]
    start = [torch.randn(1, n) for n in (300, 64, 5, 40)]
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            values = [soft_orthogonality(leaves, reduction="none"), srip(leaves, start=start, reduction="none")]
            results.append([*values, *(g for v in values for g in torch.autograd.grad(v.sum(), leaves))])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_several_python_threads_at_once():
    from concurrent.futures import ThreadPoolExecutor

    leaves = [torch.randn(100 + i, 300) for i in range(8)]
    truth = [soft_orthogonality([leaf]).item() for leaf in leaves]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda leaf: soft_orthogonality([leaf]).item(), leaves * 5)) == truth * 5
    assert as_matrices(leaves)[0].shape == (100, 300)
