"""Value and gradient in one call: what autograd gives, added in place, on every backend and in every layout."""

import copy

import pytest
import torch
from torch import nn
from truth import relative

from ortho_kernels import (
    OrthogonalityPenalty,
    soft_orthogonality,
    soft_orthogonality_value_and_grad,
    srip,
    srip_value_and_grad,
)
from ortho_kernels.backends.protocol import Into
from ortho_kernels.gradients import soft_orthogonality_gradients, srip_gradients
from ortho_kernels.options import SO, SRIP
from ortho_kernels.weight_views import weight_views

SHAPES = [(12, 3, 3, 3), (5, 12), (12, 5), (1, 1), (4, 1, 2, 2), (70, 90), (300, 310), (0, 3)]
GROUPS = [2, 1, 1, 1, 4, 1, 1, 1]
ORDERS = [(2, 6), (1, 5), (1, 5), (1, 1), (4, 1), (1, 70), (1, 300), (1, 0)]
SO_OPTIONS = [
    {},
    {"squared": False},
    {"side": "large", "reduction": "none"},
    {"diagonal": 0.0, "off_diagonal": 2.0, "reduction": "mean", "side": "cols"},
]
SRIP_OPTIONS = [
    {},
    {"squared": True, "reduction": "mean"},
    {"gradient": "envelope", "iterations": 4, "reduction": "none"},
]


def weights(dtype=torch.float32):
    return [(torch.randn(shape) / max(1, torch.Size(shape[1:]).numel()) ** 0.5).to(dtype) for shape in SHAPES]


def with_start(options):
    return {**options, "start": [torch.randn(size) for size in ORDERS]}


def close(given, truth, dtype):
    rounding = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype]
    return (given.double() - truth.double()).norm() <= rounding * truth.double().norm() + 1e-12


def check(penalty, fused, Ws, options, dtype):
    leaves = [w.clone().requires_grad_() for w in Ws]
    value = penalty(leaves, groups=GROUPS, **options)
    truth = torch.autograd.grad(value.sum(), leaves)
    given, gradients = fused(Ws, groups=GROUPS, scale=0.5, **options)
    assert not given.requires_grad
    assert given.dtype == value.dtype
    assert close(given, value.detach(), torch.float32 if dtype is not torch.float64 else dtype)
    for gradient, true, w in zip(gradients, truth, Ws, strict=True):
        assert (gradient.dtype, gradient.stride()) == (w.dtype, w.stride())
        assert close(gradient, 0.5 * true, dtype)
    before = [torch.randn_like(w) for w in Ws]
    held: list = [b.clone() for b in before]
    held[1] = None
    again, same = fused(Ws, groups=GROUPS, scale=-2.0, accumulate_into=held, **options)
    assert torch.equal(again, given)
    for index, (target, b, true) in enumerate(zip(held, before, truth, strict=True)):
        assert same[index] is target
        if index != 1:
            assert close(target, b.double() - 2 * true.double(), dtype)


@pytest.mark.parametrize("options", SO_OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_soft_orthogonality(backend, dtype, options):
    check(soft_orthogonality, soft_orthogonality_value_and_grad, weights(dtype), options, dtype)


@pytest.mark.smoke
@pytest.mark.parametrize("options", SRIP_OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_srip(backend, dtype, options):
    check(srip, srip_value_and_grad, weights(dtype), with_start(options), dtype)


LAYOUTS = {
    "channels_last": lambda: torch.randn(8, 4, 3, 3).contiguous(memory_format=torch.channels_last),
    "channels_last, tall": lambda: torch.randn(90, 4, 3, 3).contiguous(memory_format=torch.channels_last),
    "transposed": lambda: torch.randn(40, 30).t(),
    "every other row": lambda: torch.randn(24, 30)[::2],
    "every other column": lambda: torch.randn(6, 8, 3)[:, ::2],
    "overlapping": lambda: torch.randn(400).as_strided((20, 90), (3, 2)),
}


@pytest.mark.smoke
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("penalty", "fused"),
    [(soft_orthogonality, soft_orthogonality_value_and_grad), (srip, srip_value_and_grad)],
    ids=["so", "srip"],
)
def test_layouts(kernels, penalty, fused, layout):
    """Gradients in their weight's layout, in another, and in one tensor for a weight that is listed twice."""
    weight = LAYOUTS[layout]()
    order = min(len(weight), weight[0].numel())
    options = {} if penalty is soft_orthogonality else {"start": [torch.randn(1, order)]}
    leaf = weight.detach().double().contiguous().requires_grad_()
    (truth,) = torch.autograd.grad(penalty([leaf], **options), leaf)
    _, (fresh,) = fused([weight], **options)
    assert relative(fresh, truth) < 1e-5
    for target in (torch.zeros_like(weight), torch.zeros(weight.shape)):
        fused([weight], accumulate_into=[target], **options)
        assert relative(target, truth) < 1e-5
    if options:
        options["start"] *= 2
    fused([weight, weight], accumulate_into=[target, target], **options)
    assert relative(target, 3 * truth) < 1e-5


def test_orthogonal_and_zero_weights_have_finite_gradients(backend):
    Ws = [torch.eye(4, 6), torch.zeros(3, 5)]
    value, gradients = soft_orthogonality_value_and_grad(Ws, squared=False, reduction="none")
    assert value.tolist() == [0, pytest.approx(3**0.5)]
    assert all(g.eq(0).all() for g in gradients)
    value, gradients = srip_value_and_grad(Ws, squared=True, reduction="none")
    assert value.tolist() == [0, pytest.approx(1)]
    assert all(g.eq(0).all() for g in gradients)


def test_a_factor_beyond_the_dtype_is_infinite(kernels):
    _, (gradient,) = soft_orthogonality_value_and_grad([torch.full((2, 3), 2.0)], scale=1e39)
    assert (gradient == float("inf")).all()


def test_empty_list(backend):
    assert soft_orthogonality_value_and_grad([]) == (0, [])
    assert srip_value_and_grad([], accumulate_into=[]) == (0, [])


def test_bad_targets(backend):
    W = torch.randn(3, 4)
    for fused in (soft_orthogonality_value_and_grad, srip_value_and_grad):
        with pytest.raises(ValueError, match="one tensor, or None, a weight: got 2 tensors for 1 weights"):
            fused([W], accumulate_into=[W, W])
        with pytest.raises(ValueError, match=r"accumulate_into\[1\] shares its memory with a weight"):
            fused([W, W + 1], accumulate_into=[None, W.detach()])  # a step in place would read what it wrote
        with pytest.raises(
            ValueError, match=r"accumulate_into\[0\] .* shape \(4, 3\).*like weights\[0\]: shape \(3, 4\)"
        ):
            fused([W], accumulate_into=[W.t()])
        with pytest.raises(ValueError, match=r"float64 on \S+; expected a dense one"):
            fused([W], accumulate_into=[W.double()])
        with pytest.raises(RuntimeError, match="more than one element of the written-to tensor"):
            fused([W], accumulate_into=[torch.zeros(1, 4).expand(3, 4)])
        with pytest.raises(TypeError, match=r"accumulate_into\[0\] is a float"):
            fused([W], accumulate_into=[1.0])
        with pytest.raises(ValueError, match="scale must be a finite number; got nan"):
            fused([W], scale=float("nan"))


def test_threads_do_not_change_a_bit(kernels):
    Ws = [torch.randn(s) for s in [(300, 700), (64, 64, 3, 3), (33, 5), (2000, 40), (200, 3000)]]
    large = [*Ws, torch.randn(70, 60_000)]  # which all threads share
    start = [torch.randn(1, min(len(w), w[0].numel())) for w in large]
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            so, so_gradients = soft_orthogonality_value_and_grad(Ws, reduction="none")
            sigma, srip_gradients = srip_value_and_grad(large, start=start, reduction="none")
            results.append([so, sigma, *so_gradients, *srip_gradients])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("accumulate", [True, False])
def test_a_factor_on_the_device(backend, accumulate):
    """A loss scale or a scheduled gamma is a tensor, which nobody waits for."""
    Ws, kept = [torch.randn(6, 20), torch.randn(40, 9)], []
    for factor in (0.7, torch.tensor(0.7, dtype=torch.float64)):
        targets = [torch.ones_like(w) for w in Ws]
        views, into = weight_views(Ws, 1), Into(targets, factor, accumulate)
        values = soft_orthogonality_gradients(Ws, views, SO(squared=False), into)
        start = torch.ones(6 + 9)
        sigma, last = srip_gradients(Ws, views, SRIP(squared=True), start, into, follow=True)
        kept.append([values, sigma, last, *targets])
    for a, b in zip(*kept, strict=True):
        torch.testing.assert_close(a, b)


def test_compile_fullgraph(kernels):
    def step(w, target):
        value, _ = soft_orthogonality_value_and_grad([2 * w], accumulate_into=[target], scale=3.0)
        return value

    w, target, expected = torch.randn(6, 9), torch.ones(6, 9), torch.ones(6, 9)
    value = torch.compile(step, fullgraph=True, backend="aot_eager")(w, target)
    torch.testing.assert_close(value, step(w, expected))
    torch.testing.assert_close(target, expected)


def encoder():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.Conv2d(8, 8, 3, groups=4),
        nn.Linear(6, 5),
        nn.utils.parametrizations.weight_norm(nn.Linear(5, 4)),
    )


@pytest.mark.parametrize(
    ("kind", "options"),
    [("so", {"squared": False}), ("srip", {"warm_start": True}), ("srip", {"iterations": 3})],
    ids=str,
)
def test_a_penalty_accumulates_what_backward_does(backend, kind, options):
    """Frozen weights get nothing, parametrizations pass it on, and warm starts move on as they do with a graph."""
    one = encoder()
    one[2].weight.requires_grad_(False)
    other = copy.deepcopy(one)
    one[0].weight.grad = torch.randn_like(one[0].weight)
    other[0].weight.grad = one[0].weight.grad.clone()
    penalties = [OrthogonalityPenalty(model, kind, gamma=0.3, **options) for model in (one, other)]
    penalties[1].load_state_dict(penalties[0].state_dict())
    for _ in range(3):
        torch.manual_seed(1)
        value = penalties[0]()
        (2.0 * value).backward()
        torch.manual_seed(1)
        accumulated = penalties[1].accumulate_gradients(scale=2.0)
        assert accumulated.item() == pytest.approx(value.item(), rel=1e-5)
        assert not accumulated.requires_grad
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None:
            assert relative(b.grad, a.grad.double()) < 1e-4, name
    for a, b in zip(penalties[0].buffers(), penalties[1].buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
