"""SRIP on every backend: values and gradients against the dense power iteration in float64."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from truth import as_matrices, near_orthogonal, relative, residual, sigma

from ortho_kernels import reference, srip

SHAPES = [(64, 3, 7, 7), (10, 64), (64, 10), (1, 1), (1, 300), (300, 1), (33, 65), (128, 16, 3, 3), (4, 2, 3, 3, 3)]
GRADIENT_ERROR = {torch.float64: 1e-11, torch.float32: 1e-5, torch.bfloat16: 4e-3, torch.float16: 5e-4}


def starts(weights, groups=1, side="small", dtype=torch.float32):
    counts = [groups] * len(weights) if isinstance(groups, int) else groups
    orders = [len(residual(as_matrices([w], g)[0], side)) for w, g in zip(weights, counts, strict=True)]
    return [torch.randn(g, n, dtype=dtype) for g, n in zip(counts, orders, strict=True)]


def true_gradients(weights, start, **options):
    doubles = [weight.detach().double().requires_grad_() for weight in weights]
    return torch.autograd.grad(reference.srip(doubles, start=[x.double() for x in start], **options), doubles)


@pytest.mark.parametrize("iterations", [1, 2, 3, 6])
@pytest.mark.parametrize("side", ["small", "large", "rows", "cols"])
def test_values_are_the_dense_power_iteration(backend, side, iterations):
    weights = [torch.randn(shape) / 3 for shape in SHAPES]
    start = starts(weights, side=side)
    values = srip(weights, start=start, side=side, iterations=iterations, reduction="none")
    truth = [sigma(W, x[0].double(), side, iterations) for W, x in zip(as_matrices(weights), start, strict=True)]
    for value, true in zip(values, truth, strict=True):
        assert relative(value, true) < 1e-5


@pytest.mark.parametrize("dtype", GRADIENT_ERROR, ids=str)
@pytest.mark.parametrize("gradient", ["through", "envelope"])
@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_gradients(backend, dtype, gradient, iterations):
    weights = [(torch.randn(shape) / 4).to(dtype).requires_grad_() for shape in SHAPES]
    start = starts(weights, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    options = {"iterations": iterations, "gradient": gradient}
    value = srip(weights, start=start, **options)
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    gradients = torch.autograd.grad(value, weights)
    for weight, given_, true in zip(weights, gradients, true_gradients(weights, start, **options), strict=True):
        assert given_.dtype == weight.dtype
        assert relative(given_, true) < GRADIENT_ERROR[dtype]


def test_the_exact_gradient_by_finite_differences():
    """The reference's autograd itself is held to differences of the dense formula."""
    W, x, step = torch.randn(4, 6, dtype=torch.float64), torch.randn(4, dtype=torch.float64), 1e-6
    leaf = W.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(reference.srip([leaf], start=[x[None]]), leaf)
    differences = torch.zeros_like(W)
    for i in range(4):
        for j in range(6):
            shift = torch.zeros_like(W)
            shift[i, j] = step
            differences[i, j] = (sigma(W + shift, x) - sigma(W - shift, x)) / (2 * step)
    torch.testing.assert_close(gradient, differences, rtol=1e-6, atol=1e-8)


def test_the_envelope_gradient_is_the_limit(backend):
    weight = torch.randn(12, 20, dtype=torch.float64).requires_grad_()
    start = starts([weight], dtype=torch.float64)
    through, envelope = (
        torch.autograd.grad(srip([weight], start=start, iterations=400, gradient=gradient), weight)[0]
        for gradient in ("through", "envelope")
    )
    torch.testing.assert_close(through, envelope, rtol=1e-6, atol=1e-8)
    R = residual(weight.detach(), "small")
    torch.testing.assert_close(
        srip([weight], start=start, iterations=400).detach(), torch.linalg.matrix_norm(R, 2), rtol=1e-8, atol=0
    )


@pytest.mark.smoke
def test_near_orthogonality_keeps_its_digits(backend):
    weights = [near_orthogonal(*shape).requires_grad_() for shape in [(64, 576), (256, 128), (128, 128)]]
    start = starts(weights)
    values = srip(weights, start=start, reduction="none")
    for value, W, x in zip(values.detach(), as_matrices(weights), start, strict=True):
        assert relative(value, sigma(W, x[0].double())) < 1e-5
    for gradient, true in zip(torch.autograd.grad(values.sum(), weights), true_gradients(weights, start), strict=True):
        # In plain float32 R v carries the rounding of a difference of nearly equal numbers.
        assert relative(gradient, true) < (5e-5 if backend == "torch" else 1e-5)


@pytest.mark.parametrize("side", ["small", "cols"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_start_follows_the_shape_not_the_memory(backend, memory_format, side):
    """A start vector is in the order of the weight's dimensions, wherever its entries lie."""
    weight = torch.randn(64, 2, 3, 3)
    start = starts([weight], side=side)
    moved = weight.to(memory_format=memory_format).requires_grad_()
    value = srip([moved], start=start, side=side)
    assert relative(value.detach(), sigma(as_matrices([weight])[0], start[0][0].double(), side)) < 1e-5
    (gradient,) = torch.autograd.grad(value, moved)
    assert relative(gradient, true_gradients([weight], start, side=side)[0]) < 1e-5


@pytest.mark.smoke
@pytest.mark.parametrize("groups", [1, 2, 16])
def test_groups(backend, groups):
    weight = torch.randn(16, 5, 3, 3).requires_grad_()
    start = starts([weight], groups)
    values = srip([weight], groups=groups, start=start, reduction="none")
    truth = [sigma(W, x.double()) for W, x in zip(as_matrices([weight], groups), start[0], strict=True)]
    assert relative(values.detach(), torch.stack(truth)) < 1e-5
    (gradient,) = torch.autograd.grad(values.sum(), weight)
    assert relative(gradient, true_gradients([weight], start, groups=groups)[0]) < 1e-5


def test_generator_and_default_draws(backend):
    weights = [torch.randn(9, 30), torch.randn(20, 6)]
    first, second = (srip(weights, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    assert first == srip(weights, generator=torch.Generator().manual_seed(1))
    assert first != second
    truth = reference.srip(weights, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(first, truth, rtol=1e-5, atol=0)
    torch.manual_seed(5)
    value = srip(weights)
    torch.manual_seed(5)
    assert value == srip(weights)


def test_squared(backend):
    weight = torch.randn(9, 30).requires_grad_()
    start = starts([weight])
    value, squared = (srip([weight], start=start, squared=flag) for flag in (False, True))
    torch.testing.assert_close(squared, value.square())
    (gradient,) = torch.autograd.grad(squared, weight)
    assert relative(gradient, true_gradients([weight], start, squared=True)[0]) < 1e-5


@pytest.mark.parametrize("weight", [torch.zeros(4, 6), torch.eye(4, 6), torch.eye(6, 4)], ids=["zero", "wide", "tall"])
@pytest.mark.parametrize("start", [0.0, 1.0])
@pytest.mark.parametrize("iterations", [1, 2, 4])
def test_degenerate_matrices_stay_finite(backend, weight, start, iterations):
    weight = weight.to(torch.get_default_device(), copy=True).requires_grad_()
    value = srip([weight], start=[torch.full((1, 4), start)], iterations=iterations)
    (gradient,) = torch.autograd.grad(value, weight)
    residual_is_zero = bool(weight.any())
    assert value == (0.0 if residual_is_zero or start == 0 else 1.0)
    assert gradient.isfinite().all()
    if value == 0:
        assert not gradient.any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_inf_come_out(backend, bad):
    weight = torch.randn(40, 70)
    weight[33, 55] = bad
    values = srip([torch.eye(5), weight], reduction="none")
    assert values[0] == 0
    assert not values[1].isfinite()


def test_frozen_shared_empty(backend):
    shared, frozen = torch.randn(6, 9).requires_grad_(), torch.randn(7, 5)
    start = starts([shared, frozen, shared])
    srip([shared, frozen, shared], start=start).backward()
    truth = true_gradients([shared], start[:1])[0] + true_gradients([shared], start[2:])[0]
    assert relative(shared.grad, truth) < 1e-5
    assert frozen.grad is None
    assert srip([]) == 0
    assert srip([], start=[]) == 0
    assert srip([torch.zeros(0, 5), torch.zeros(5, 0)]) == 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shapes=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=5),
    side=st.sampled_from(["small", "large"]),
    iterations=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_any_shapes(backend, shapes, side, iterations, seed):
    torch.manual_seed(seed)
    weights = [torch.randn(shape).requires_grad_() for shape in shapes]
    start = starts(weights, side=side)
    value = srip(weights, start=start, side=side, iterations=iterations)
    truth = sum(sigma(W, x[0].double(), side, iterations) for W, x in zip(as_matrices(weights), start, strict=True))
    assert abs(value.item() - truth.item()) <= 1e-5 * truth.item() + 1e-5
    true = true_gradients(weights, start, side=side, iterations=iterations)
    for gradient, true_gradient in zip(torch.autograd.grad(value, weights), true, strict=True):
        assert (gradient - true_gradient).norm() <= 1e-4 * true_gradient.norm() + 1e-5
