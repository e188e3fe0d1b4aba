"""The penalties of the extreme eigenvalues of W W^T against the formulas of the released code, with a dense Gram."""

import pytest
import torch

from ortho_kernels import use_backend
from ortho_kernels.compat import of_penalty, svdo, svmo


def published_extremes(W, start):
    """The Rayleigh quotients of G and of G - largest I after one application each, with a dense G = W W^T."""
    G = W @ W.T
    y = G @ start[:, 0]
    largest = y @ G @ y / (y @ y)
    shifted = G - largest * torch.eye(len(G), dtype=G.dtype)
    z = shifted @ start[:, 1]
    return largest, largest + z @ shifted @ z / (z @ z)


KERNELS = [(20, 3, 3, 3), (10, 50), (30, 4)]  # the last has a singular Gram


@pytest.mark.parametrize("shape", KERNELS)
@pytest.mark.parametrize("penalty", [svdo, svmo])
def test_penalties_of_extreme_eigenvalues(penalty, shape):
    kernel = torch.randn(shape, requires_grad=True)
    start = torch.rand(shape[0], 2)
    largest, smallest = published_extremes(kernel.double().flatten(1), start.double())
    truth = 10 * (largest - smallest) ** 2 if penalty is svmo else (largest / smallest - 1) ** 2
    value = penalty(kernel, start=start)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), truth, rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(value, kernel)
    (true,) = torch.autograd.grad(truth, kernel)
    torch.testing.assert_close(gradient, true, rtol=1e-5, atol=1e-6 * true.abs().max().item())


@pytest.mark.parametrize("penalty", [svdo, svmo])
def test_gradients_of_extreme_eigenvalues(penalty):
    kernel = torch.randn(4, 7, dtype=torch.float64, requires_grad=True)
    start = torch.rand(4, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda kernel: penalty(kernel, start=start), kernel)
    features = torch.randn(3, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    start = torch.randn(3, 4, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda features: of_penalty(features, start=start), features)


@pytest.mark.parametrize("penalty", [svdo, svmo])
def test_a_list_is_the_sum(penalty):
    kernels = [torch.randn(shape, requires_grad=True) for shape in [*KERNELS, (200, 130)]]
    starts = [torch.rand(len(kernel), 2) for kernel in kernels]
    alone = sum(penalty(kernel, start=start).double() for kernel, start in zip(kernels, starts, strict=True))
    together = penalty(kernels, start=starts)
    torch.testing.assert_close(together.double(), alone, rtol=1e-6, atol=0)
    expected = torch.autograd.grad(alone, kernels)
    torch.testing.assert_close(torch.autograd.grad(together, kernels), expected, rtol=1e-5, atol=1e-5)
    assert penalty([]) == 0
    with pytest.raises(ValueError, match="start must have one tensor for each kernel: got 1 for 4 kernels"):
        penalty(kernels, start=starts[:1])
    with pytest.raises(ValueError, match=r"kernel\[1\] has shape \(8,\)"):
        penalty([kernels[0], torch.zeros(8)])


@pytest.mark.parametrize("size", [1e-6, 1e-2, 1e3])
@pytest.mark.parametrize("shape", [(20, 60), (300, 150)])
def test_kernels_of_any_size_keep_their_digits(shape, size):
    kernel = (size * torch.randn(shape)).requires_grad_()
    start = torch.rand(shape[0], 2)
    largest, smallest = published_extremes(kernel.double(), start.double())
    value, truth = svdo(kernel, start=start), (largest / smallest - 1) ** 2
    torch.testing.assert_close(value.double(), truth, rtol=1e-5, atol=0)
    gradient, true = (torch.autograd.grad(each, kernel)[0] for each in (value, truth))
    assert (gradient - true).norm() <= 1e-5 * true.norm()


def test_the_kernels_and_the_reference_agree():
    kernels = [torch.randn(shape, requires_grad=True) for shape in KERNELS]
    starts = [torch.rand(len(kernel), 2) for kernel in kernels]
    value = svmo(kernels, start=starts)
    with use_backend("torch"):
        defined = svmo(kernels, start=starts)
    torch.testing.assert_close(value, defined)
    for gradient, true in zip(*(torch.autograd.grad(each, kernels) for each in (value, defined)), strict=True):
        assert (gradient - true).norm() <= 1e-6 * true.norm()


def test_once_differentiable_and_under_transforms():
    kernel, start = torch.randn(5, 8, requires_grad=True), torch.rand(5, 2)
    (gradient,) = torch.autograd.grad(svmo(kernel, start=start), kernel, create_graph=True)
    transformed = torch.func.grad(lambda W: svmo(W, start=start))(kernel.detach())
    assert torch.equal(transformed, gradient)
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        torch.autograd.grad(gradient.sum(), kernel)


def test_they_are_operators():
    weights = [torch.randn(6, 4, 3, requires_grad=True), torch.randn(5, 9, requires_grad=True)]
    operator = torch.ops.ortho_kernels.extreme_eigenvalues.default
    torch.library.opcheck(operator, (weights, [2, 1], torch.rand(11, 2), True))


def test_the_product_is_an_operator():
    weights = [torch.randn(6, 4, 3), torch.randn(9, 5).t()]
    torch.library.opcheck(torch.ops.ortho_kernels.gram_times_vectors.default, (weights, [2, 1], torch.randn(11)))
    x = torch.randn(11)
    product = torch.ops.ortho_kernels.gram_times_vectors(weights, [2, 1], x)
    matrices = [*weights[0].double().reshape(2, 3, 12), weights[1].double()]
    truth = torch.cat([W @ (W.T @ v) for W, v in zip(matrices, x.double().split([3, 3, 5]), strict=True)])
    torch.testing.assert_close(product, truth)


DEGENERATE = {
    "zero": torch.zeros(6, 8),
    "identity": torch.eye(6, 8),
    "orthogonal": torch.nn.init.orthogonal_(torch.empty(6, 8), generator=torch.Generator().manual_seed(0)),
    "scaled": 3 * torch.eye(6, 8),
    "one filter": torch.linspace(-1, 2, 8)[None],
}


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("penalty", [svdo, svmo])
def test_equal_eigenvalues_cost_nothing(penalty, name):
    kernel = DEGENERATE[name].clone().requires_grad_()
    value = penalty(kernel)
    (gradient,) = torch.autograd.grad(value, kernel)
    assert 0 <= value < 1e-10
    assert gradient.norm() < 1e-4  # float32 is orthogonal to 1e-7
    batch = DEGENERATE[name].expand(2, -1, -1).clone().requires_grad_()
    value = of_penalty(batch)
    (gradient,) = torch.autograd.grad(value, batch)
    assert abs(value) < 1e-4
    assert gradient.isfinite().all()


def test_a_zero_vector_gives_zero():
    kernel = torch.randn(6, 8, requires_grad=True)
    value = svmo(kernel, start=torch.zeros(6, 2))
    (gradient,) = torch.autograd.grad(value, kernel)
    assert value == 0
    assert not gradient.any()


def test_of_penalty():
    features = torch.randn(4, 5, 3, 2, requires_grad=True)
    start = torch.randn(4, 5, 2)
    pairs = [
        published_extremes(F, x) for F, x in zip(features.double().flatten(2).unbind(), start.double(), strict=True)
    ]
    truth = sum(largest - smallest for largest, smallest in pairs) * 32 / 4
    value = of_penalty(features, start=start)
    torch.testing.assert_close(value.double(), truth, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(value, features), torch.autograd.grad(truth, features), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("penalty", [svdo, svmo, of_penalty])
def test_start_vectors_are_drawn_afresh(penalty):
    given = torch.randn(3, 4, 5)
    torch.manual_seed(0)
    first, second = penalty(given), penalty(given)
    torch.manual_seed(0)
    assert first != second
    assert penalty(given) == first


def test_bad_kernels_features_and_start_vectors():
    with pytest.raises(ValueError, match=r"kernel has shape \(8,\); expected at least 2 dimensions"):
        svmo(torch.zeros(8))
    with pytest.raises(TypeError, match=r"kernel has dtype torch\.int64"):
        svdo(torch.zeros(8, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"start must have shape \(6, 2\), two vectors a matrix; got \(2, 6\)"):
        svmo(torch.zeros(6, 8), start=torch.zeros(2, 6))
    with pytest.raises(ValueError, match=r"features must be \(batch, channels, ...\) .* got \(6, 8\)"):
        of_penalty(torch.zeros(6, 8))
    with pytest.raises(TypeError, match=r"features is a list; expected a torch\.Tensor"):
        of_penalty([torch.zeros(6, 8, 2)])
    with pytest.raises(TypeError, match=r"start must be a tensor of shape \(6, 2\); got a list"):
        svmo(torch.zeros(6, 8), start=[torch.zeros(6, 2)])


@pytest.mark.parametrize("penalty", [svdo, svmo, of_penalty])
def test_compiled_and_under_autocast(penalty):
    given, start = torch.randn(3, 4, 5), torch.randn(3, 4, 2)
    given, start = (given, start) if penalty is of_penalty else (given[0], start[0])
    value = penalty(given, start=start)
    compiled = torch.compile(lambda given: penalty(given, start=start), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(given), value)
    with torch.autocast("cpu", torch.bfloat16):
        assert penalty(given, start=start) == value
    rounded = given.bfloat16()
    assert penalty(rounded, start=start) == penalty(rounded.float(), start=start)
