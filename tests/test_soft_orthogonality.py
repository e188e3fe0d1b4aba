"""SO on every backend: values and gradients against singular values and closed forms in float64."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from truth import as_matrices, near_orthogonal, relative, residual, so_from_spectrum, so_gradient

from ortho_kernels import reference, soft_orthogonality

SHAPES = [
    (64, 3, 7, 7),
    (10, 64),
    (64, 10),
    (1, 1),
    (1, 300),
    (300, 1),
    (33, 65),
    (128, 16, 3, 3),
    (17, 4, 5),
    (4, 2, 3, 3, 3),
]
# Rounding of the weights is shared with the truth; what is left is float32 arithmetic and the gradient's own rounding.
GRADIENT_ERROR = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 4e-3, torch.float16: 5e-4}


@pytest.mark.smoke
@pytest.mark.parametrize("dtype", GRADIENT_ERROR, ids=str)
def test_values_and_gradients(backend, dtype):
    weights = [(torch.randn(shape) / 4).to(dtype).requires_grad_() for shape in SHAPES]
    values = soft_orthogonality(weights, reduction="none")
    assert values.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    Ws = as_matrices(weights)
    assert relative(values, torch.stack([so_from_spectrum(W) for W in Ws])) < 1e-5
    values.sum().backward()
    for weight, W in zip(weights, Ws, strict=True):
        assert weight.grad.dtype == dtype
        assert relative(weight.grad, so_gradient(W).view_as(weight)) < GRADIENT_ERROR[dtype]


@pytest.mark.smoke
def test_near_orthogonality_keeps_its_digits(backend):
    weights = [near_orthogonal(*shape).requires_grad_() for shape in [(64, 576), (256, 128), (128, 128), (512, 1000)]]
    values = soft_orthogonality(weights, reduction="none")
    for value, W in zip(values, as_matrices(weights), strict=True):
        assert relative(value, so_from_spectrum(W)) < 1e-5
    for gradient, W in zip(torch.autograd.grad(values.sum(), weights), as_matrices(weights), strict=True):
        # Plain float32 rounds the diagonal of the Gram, which is near 1, before 1 is taken away.
        limit = 5e-5 if backend == "torch" else 1e-5
        assert relative(gradient, (4 * residual(W, "rows") @ W).view_as(gradient)) < limit


@pytest.mark.smoke
def test_small_orders_keep_their_digits_too(kernels):
    """Where few entries average out the rounding, the kernels must still give five digits."""
    weights = [near_orthogonal(*shape) for shape in [(1, 7), (2, 2), (3, 1000), (16, 9), (8, 3, 3, 3)]]
    for value, W in zip(soft_orthogonality(weights, reduction="none"), as_matrices(weights), strict=True):
        assert relative(value, so_from_spectrum(W)) < 1e-5


@pytest.mark.parametrize("side", ["small", "large", "rows", "cols"])
@pytest.mark.parametrize(("diagonal", "off_diagonal"), [(1, 1), (0, 1), (1, 0), (0.25, 3)])
def test_sides_and_factors(backend, side, diagonal, off_diagonal):
    weights = [(torch.randn(shape) / 3).requires_grad_() for shape in [(20, 50), (50, 20), (16, 16), (8, 2, 3, 3)]]
    options = {"side": side, "diagonal": diagonal, "off_diagonal": off_diagonal}
    values = soft_orthogonality(weights, reduction="none", **options)
    doubles = [weight.detach().double().requires_grad_() for weight in weights]
    truths = []
    for double in doubles:
        R = residual(double.flatten(1), side)
        on = R.diagonal().square().sum()
        truths.append(diagonal * on + off_diagonal * (R.square().sum() - on))
    assert relative(values, torch.stack(truths).detach()) < 1e-5
    gradients = torch.autograd.grad(values.sum(), weights)
    for gradient, truth in zip(gradients, torch.autograd.grad(sum(truths), doubles), strict=True):
        assert relative(gradient, truth) < 1e-5


def test_the_large_side_is_the_small_side_plus_a_constant(backend):
    weight = torch.randn(5, 12)
    small, large = (soft_orthogonality([weight], side=side) for side in ("small", "large"))
    torch.testing.assert_close(large - small, torch.tensor(7.0), rtol=1e-5, atol=1e-4)


def test_square_root_is_finite_at_orthogonality(backend):
    weight = torch.eye(4, 6).requires_grad_()
    value = soft_orthogonality([weight], squared=False)
    value.backward()
    assert value == 0
    assert torch.equal(weight.grad, torch.zeros_like(weight))
    other = torch.randn(4, 6)
    torch.testing.assert_close(
        soft_orthogonality([other], squared=False).double(), so_from_spectrum(other.double()).sqrt(), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_groups_are_matrices_of_their_own(backend, groups):
    weight = torch.randn(16, 5, 3, 3).requires_grad_()
    values = soft_orthogonality([weight, torch.randn(3, 4)], groups=[groups, 1], reduction="none")
    assert values.shape == (groups + 1,)
    Ws = as_matrices([weight], groups)
    assert relative(values[:-1].detach(), torch.stack([so_from_spectrum(W) for W in Ws])) < 1e-5
    values.sum().backward()
    assert relative(weight.grad, torch.cat([so_gradient(W) for W in Ws]).view_as(weight)) < 1e-5


def test_depthwise(backend):
    weight = torch.randn(32, 1, 3, 3).requires_grad_()
    value = soft_orthogonality([weight], groups=32)
    norms = weight.detach().double().flatten(1).norm(dim=1)
    assert relative(value.detach(), ((norms**2 - 1) ** 2).sum()) < 1e-5


def strided_weights():
    base = torch.randn(24, 18, 3, 3)
    return {
        "channels_last": base.to(memory_format=torch.channels_last),
        "channels_last, tall": torch.randn(64, 2, 3, 3).to(memory_format=torch.channels_last),
        "channels_last_3d": torch.randn(8, 3, 2, 2, 2).to(memory_format=torch.channels_last_3d),
        "transposed": torch.randn(40, 30).T,
        "every other row": torch.randn(40, 30)[::2],
        "every other column": torch.randn(30, 40)[:, ::2],
        "expanded": torch.randn(1, 12).expand(6, 12),
        "overlapping": torch.randn(50).as_strided((6, 10), (3, 1)),
        "sliced channels": base[:, ::2],
        "permuted kernel": base.permute(0, 3, 2, 1),
        "rows of channels_last": base.to(memory_format=torch.channels_last)[::3],
    }


@pytest.mark.smoke
@pytest.mark.parametrize("name", strided_weights())
def test_strided_weights(backend, name):
    weight = strided_weights()[name].requires_grad_()
    groups = 2
    value = soft_orthogonality([weight], groups=groups)
    Ws = as_matrices([weight], groups)
    assert relative(value.detach(), sum(so_from_spectrum(W) for W in Ws)) < 1e-5
    (gradient,) = torch.autograd.grad(value, weight)
    assert relative(gradient, torch.cat([so_gradient(W) for W in Ws]).view_as(weight)) < 1e-5


def test_gradients_keep_the_memory_format(kernels):
    weight = torch.randn(24, 18, 3, 3).to(memory_format=torch.channels_last).requires_grad_()
    (gradient,) = torch.autograd.grad(soft_orthogonality([weight]), weight)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_incoming_gradients_scale_each_matrix(backend):
    weights = [torch.randn(6, 9).requires_grad_(), torch.randn(9, 4).requires_grad_()]
    values = soft_orthogonality(weights, reduction="none")
    gradients = torch.autograd.grad(values, weights, torch.tensor([2.0, -0.5]))
    for gradient, W, factor in zip(gradients, as_matrices(weights), (2.0, -0.5), strict=True):
        assert relative(gradient, factor * so_gradient(W)) < 1e-5


def test_reductions(backend):
    weights = [torch.randn(6, 9), torch.randn(9, 4)]
    values = soft_orthogonality(weights, reduction="none")
    torch.testing.assert_close(soft_orthogonality(weights), values.sum())
    torch.testing.assert_close(soft_orthogonality(weights, reduction="mean"), values.mean())


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_no_weights_cost_nothing(backend, reduction):
    assert soft_orthogonality([], reduction=reduction) == 0
    assert soft_orthogonality([], reduction="none").shape == (0,)


@pytest.mark.parametrize(("shape", "value"), [((0, 5), 0.0), ((5, 0), 0.0), ((0, 0), 0.0)])
def test_empty_matrices(backend, shape, value):
    weight = torch.zeros(shape, requires_grad=True)
    result = soft_orthogonality([weight, torch.eye(3)])
    result.backward()
    assert result == value
    assert weight.grad.shape == shape


def test_shared_and_frozen(backend):
    shared, frozen = torch.randn(6, 9).requires_grad_(), torch.randn(7, 5)
    soft_orthogonality([shared, frozen, shared]).backward()
    assert frozen.grad is None
    assert relative(shared.grad, 2 * so_gradient(shared.detach().double())) < 1e-5
    assert not soft_orthogonality([frozen]).requires_grad


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_inf_come_out(backend, bad):
    weight = torch.randn(40, 70)
    weight[33, 55] = bad
    weight.requires_grad_()
    values = soft_orthogonality([torch.eye(5), weight], reduction="none")
    assert values[0] == 0
    assert not values[1].isfinite()
    (gradient,) = torch.autograd.grad(values[1], weight)
    assert not gradient.isfinite().all()


@pytest.mark.smoke
def test_mixed_dtypes(backend):
    weights = [torch.randn(6, 9).to(dtype).requires_grad_() for dtype in GRADIENT_ERROR]
    values = soft_orthogonality(weights, reduction="none")
    assert values.dtype == torch.float64
    values.sum().backward()
    for weight, W in zip(weights, as_matrices(weights), strict=True):
        assert relative(weight.grad, so_gradient(W)) < GRADIENT_ERROR[weight.dtype]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shapes=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=5),
    side=st.sampled_from(["small", "large", "rows", "cols"]),
    off_diagonal=st.sampled_from([1.0, 0.5]),
    seed=st.integers(0, 1000),
)
def test_any_shapes(backend, shapes, side, off_diagonal, seed):
    torch.manual_seed(seed)
    weights = [torch.randn(shape).div(max(shape) ** 0.5).requires_grad_() for shape in shapes]
    doubles = [weight.detach().double().requires_grad_() for weight in weights]
    options = {"side": side, "off_diagonal": off_diagonal}
    value, truth = soft_orthogonality(weights, **options), reference.soft_orthogonality(doubles, **options)
    assert abs(value.item() - truth.item()) <= 1e-5 * truth.item() + 1e-6
    for gradient, true_gradient in zip(
        torch.autograd.grad(value, weights), torch.autograd.grad(truth, doubles), strict=True
    ):
        assert (gradient - true_gradient).norm() <= 1e-5 * true_gradient.norm() + 1e-6


@pytest.mark.smoke
def test_the_matmul_precision_rounds_gradients_and_never_values(kernels):
    weight = near_orthogonal(96, 200).requires_grad_()
    results = {}
    before = torch.get_float32_matmul_precision()
    try:
        for precision in ("highest", "high", "medium"):
            torch.set_float32_matmul_precision(precision)
            value = soft_orthogonality([weight])
            results[precision] = value.detach(), *torch.autograd.grad(value, weight)
    finally:
        torch.set_float32_matmul_precision(before)
    truth = so_gradient(weight.detach().double())
    for precision, (value, gradient) in results.items():
        assert torch.equal(value, results["highest"][0])
        rounding = {"highest": 1e-5, "high": 1e-5 if kernels == "cpu" else 1e-3, "medium": 4e-3}  # tf32 is a GPU's
        assert relative(gradient, truth) < rounding[precision]
