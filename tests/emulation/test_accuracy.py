"""The digits that the CUDA kernels keep where that is hard.

Near orthogonality R is a difference of nearly equal numbers; gradients of 16-bit weights are rounded. Both are tested on
tensor cores that add exactly and on tensor cores that truncate, as NVIDIA's do.
"""

import pytest
import torch
from forms import in_one_form
from truth import near_orthogonal, residual

f32, bf16, f16 = torch.float32, torch.bfloat16, torch.float16
PROMISED = 1e-5  # to users, of float32 gradients
ALLOWED = 0.7 * PROMISED
# The largest relative error of rounding to nearest.
UNIT_ROUNDOFF = {bf16: 2.0**-8, f16: 2.0**-11}
LEAST_NUMBER = {bf16: 0.0, f16: 2.0**-24}


def random(rows, columns, dtype):
    return (torch.randn(rows, columns) * max(rows, columns) ** -0.5).to(dtype)


def so_gradients(emulator, W, diagonal=1.0, off_diagonal=1.0, precision=0):
    """Returns the kernels' gradient, and that in float64."""
    _, residuals = emulator.soft_orthogonality([W], diagonal, off_diagonal)
    (given,) = emulator.soft_orthogonality_backward(torch.ones(1), [W], residuals, precision)
    factors = torch.full((len(W), len(W)), off_diagonal, dtype=torch.float64).fill_diagonal_(diagonal)
    return given.double(), 4 * (factors * residual(W.double())) @ W.double()


def srip_gradients(emulator, W):
    start = torch.randn(len(W), generator=torch.Generator().manual_seed(3))
    _, vectors = emulator.srip([W], start)
    (given,) = emulator.srip_backward(torch.ones(1), [W], vectors, 2)
    leaf = W.double().requires_grad_()
    before = residual(leaf) @ start.double()
    sigma = (residual(leaf) @ before).norm() / before.norm()
    return given.double(), torch.autograd.grad(sigma, leaf)[0]


def error(given, truth):
    return ((given - truth).norm() / truth.norm()).item()


@pytest.fixture(params=[False, True], ids=["exact", "truncating"])
def tensor_cores(request, emulator):
    emulator.run_as(truncating=request.param)
    return emulator


@pytest.fixture(params=[True, False], ids=["double", "two floats"])
def arithmetic(request, emulator):
    emulator.fast_double = request.param
    return emulator


SHAPES = [(257, 96), (65, 147), (96, 257), (100, 400)]


def small_side(shape):
    """Returns the matrix of a weight of this shape on its smaller side, with its strides."""
    W = near_orthogonal(*shape)
    return W.T if shape[0] > shape[1] else W


@pytest.mark.parametrize("shape", [*SHAPES, (65, 65), (130, 131)], ids=str)
def test_so_near_orthogonality(tensor_cores, shape):
    assert error(*so_gradients(tensor_cores, small_side(shape))) <= ALLOWED


@pytest.mark.parametrize("multiprocessors", [1, 200])
def test_so_near_orthogonality_however_the_depth_is_cut(tensor_cores, multiprocessors):
    tensor_cores.multiprocessors = multiprocessors
    assert error(*so_gradients(tensor_cores, near_orthogonal(70, 1500))) <= ALLOWED


@in_one_form
@pytest.mark.parametrize("shape", [*SHAPES, (5, 7), (65, 65), (70, 3000)], ids=str)
def test_srip_near_orthogonality(arithmetic, shape):
    assert error(*srip_gradients(arithmetic, small_side(shape))) <= ALLOWED


@in_one_form
@pytest.mark.parametrize("shape", [(40, 90), (90, 40)], ids=str)
def test_srip_of_two_floats_is_that_of_double(emulator, shape):
    """Within 1e-6 of orthogonality float sums would leave one digit of R."""
    W = near_orthogonal(*shape, noise=1e-6)
    W = W.T if shape[0] > shape[1] else W
    emulator.fast_double = False
    assert error(*srip_gradients(emulator, W)) <= ALLOWED


@in_one_form
@pytest.mark.parametrize("dtype", [bf16, f16], ids=str)
@pytest.mark.parametrize("made", [random, near_orthogonal], ids=["random", "near orthogonality"])
def test_gradients_of_16_bit_weights_are_off_by_little_more_than_their_rounding(tensor_cores, made, dtype):
    """In float16 that is at most 5e-4, of which rounding may take 4.9e-4."""
    for shape in [(1, 1), (1, 9), (1, 300), (2, 3), (3, 3), (5, 7), (12, 30), (66, 80)]:
        for _ in range(10 if shape[1] < 50 else 1):
            given, truth = so_gradients(tensor_cores, made(*shape, dtype=dtype))
            allowed = 1.02 * UNIT_ROUNDOFF[dtype] * truth.norm() + LEAST_NUMBER[dtype] / 2 * truth.numel() ** 0.5
            assert (given - truth).norm() <= allowed, shape


@pytest.mark.parametrize(("dtype", "allowed"), [(bf16, 2.5e-3), (f16, 2.5e-4)], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("made", [random, near_orthogonal], ids=["random", "near orthogonality"])
def test_larger_gradients_of_16_bit_weights(tensor_cores, made, dtype, allowed):
    """Rounding takes 1.7e-3 and 2.1e-4 of that; R is rounded for bfloat16 weights too."""
    assert error(*so_gradients(tensor_cores, made(70, 140, dtype=dtype))) <= allowed


@in_one_form
@pytest.mark.parametrize(
    ("dtype", "precision"),
    [(f32, 0), (f32, 1), (f32, 2), (bf16, 0), (f16, 0)],  # the products of 16-bit weights are the same at any
    ids=["float32-highest", "float32-high", "float32-medium", "bfloat16", "float16"],
)
@pytest.mark.parametrize("shape", [(66, 34), (100, 30), (70, 66)], ids=str)
def test_the_larger_gram_whose_product_with_the_weight_cancels(tensor_cores, shape, dtype, precision):
    W = near_orthogonal(*shape, dtype=dtype)
    allowed = {f32: PROMISED, bf16: 1.02 * UNIT_ROUNDOFF[bf16], f16: 1.02 * UNIT_ROUNDOFF[f16]}[dtype]
    for factors in ((0.5, 2.0), (0.0, 1.0), (1.0, 1.001)):
        assert error(*so_gradients(tensor_cores, W, *factors, precision)) <= allowed


def test_truncating_tensor_cores_make_sums_of_positive_products_smaller(emulator):
    W = random(66, 190, bf16).abs()
    sums = []
    for truncating in (False, True):
        emulator.run_as(truncating=truncating)
        _, residuals = emulator.soft_orthogonality([W])
        below_diagonal = torch.tril_indices(66, 66).diff(dim=0).ne(0).flatten()
        sums.append(residuals[below_diagonal])
    exact, truncated = sums
    assert (truncated <= exact).all()
    assert (truncated < exact).any()
