"""Soft orthogonality and its gradient against float64, over the shapes of the CPU kernels' tests."""

import pytest
import torch
from matrices import NAMES, SIDES, STORAGES, cpu_kernels

from ortho_kernels.backends.triton import heuristics, tables
from ortho_kernels.backends.triton import operators as kernels

FEW = ["odd", "tall", "channels_last, grouped", "overlapping"]
INTERPRETED = heuristics.TABLE[heuristics.INTERPRETER]
CASES = [(name, torch.float32) for name in NAMES] + [(name, dtype) for name in FEW for dtype in STORAGES[1:]]


@pytest.fixture(autouse=True)
def own_operators(monkeypatch):
    monkeypatch.setattr(cpu_kernels, "ops", kernels)


@pytest.mark.parametrize("side", SIDES, ids=["rows", "cols"])
@pytest.mark.parametrize(("name", "dtype"), CASES, ids=lambda each: str(each))
def test_as_the_cpu_kernels(name, side, dtype):
    cpu_kernels.test_soft_orthogonality(name, side, dtype)


@pytest.fixture
def small_tiles(monkeypatch):
    """Several tiles, cut in several parts, from small matrices."""
    tile = heuristics.Tile(16, 16, 16, 4, 1)
    monkeypatch.setattr("ortho_kernels.backends.triton.plan.LEAST_PART_DEPTH", 48)
    monkeypatch.setattr("ortho_kernels.backends.triton.plan.ITEMS_PER_MULTIPROCESSOR", 1000)
    with tables.configured(heuristics.replace(INTERPRETED, residual_float32=tile, product_float32=tile)):
        yield


def test_parts_of_tiles_are_summed_before_squaring(small_tiles):
    weights = [torch.randn(37, 104) / 10, torch.randn(9, 240) / 15, torch.randn(100, 20) / 10]
    sides = [0, 0, 1]
    values, residuals = kernels.soft_orthogonality(weights, [1] * 3, sides, 1.0, 1.0, True)
    plan = tables.weight_place(weights, [1] * 3, sides).device.plan
    assert {item.parts for item in plan.residuals.items[torch.float32]} == {3, 5}
    matrices = [w.double() for w in weights]
    R = [cpu_kernels.residual(w, side) for w, side in zip(matrices, sides, strict=True)]
    assert cpu_kernels.close(values, torch.stack([r.square().sum() for r in R]), torch.float32)
    lower = torch.cat([r[torch.tril_indices(*r.shape).unbind()] for r in R])
    assert cpu_kernels.close(residuals, lower, torch.float32)
    gradients = cpu_kernels.gradients(
        kernels.soft_orthogonality_backward, torch.ones(3), weights, [1] * 3, sides, residuals, 0, [1, 1, 1]
    )
    for gradient, w in zip(gradients, matrices, strict=True):
        assert cpu_kernels.close(gradient, 4 * (w @ w.T @ w - w), torch.float32)
    again, residuals_again = kernels.soft_orthogonality(weights, [1] * 3, sides, 1.0, 1.0, True)
    assert torch.equal(values, again)  # counters are left as they were found
    assert torch.equal(residuals, residuals_again)


def near_orthogonal(*shape):
    return torch.nn.init.orthogonal_(torch.empty(shape)) + 1e-3 * torch.randn(shape)


def test_digits_near_orthogonality():
    """Where R is a difference of nearly equal numbers: every value and every gradient within 1e-5."""
    shapes = [(1, 7), (2, 3), (10, 130), (16, 16), (17, 40), (27, 64), (64, 147), (96, 257), (128, 500)]
    weights = [near_orthogonal(*shape) for shape in shapes]
    ones, sides = [1] * len(weights), [0] * len(weights)
    values, residuals = kernels.soft_orthogonality(weights, ones, sides, 1.0, 1.0, True)
    gradients = cpu_kernels.gradients(
        kernels.soft_orthogonality_backward, torch.ones(len(weights)), weights, ones, sides, residuals, 0, ones
    )
    for shape, weight, value, gradient in zip(shapes, weights, values, gradients, strict=True):
        W = weight.double()
        R = cpu_kernels.residual(W, 0)
        assert abs(value.item() / R.square().sum().item() - 1) < 1e-5, shape
        assert (gradient.double() - 4 * R @ W).norm() < 1e-5 * (4 * R @ W).norm(), shape


IN_PARTS = heuristics.replace(INTERPRETED, forward_precision="bf16x8", product_precisions=("bf16x8", "ieee", "bf16"))


def test_digits_near_orthogonality_in_parts_of_bfloat16():
    with tables.configured(IN_PARTS):
        test_digits_near_orthogonality()


def test_three_parts_of_bfloat16_are_the_whole():
    """Values of all magnitudes: R by the parts is off by no more than by float32 itself."""
    weight = torch.randn(40, 90) * torch.logspace(-6, 3, 90)
    weight[3] = 0
    exact = weight.double() @ weight.double().t() - torch.eye(40, dtype=torch.float64)
    with tables.configured(IN_PARTS):
        _, residuals = kernels.soft_orthogonality([weight], [1], [0], 1.0, 1.0, True)
    rows, columns = torch.tril_indices(40, 40).unbind()
    scale = weight.abs().double() @ weight.abs().double().t() + 1
    assert ((residuals - exact[rows, columns]) / scale[rows, columns]).abs().max() < 2e-7


def test_mixed_dtypes_and_unwanted_gradients():
    weights = [torch.randn(20, 40, dtype=dtype) / 6 for dtype in STORAGES]
    values, residuals = kernels.soft_orthogonality(weights, [1] * 3, [0] * 3, 1.0, 1.0, True)
    truth = torch.stack([cpu_kernels.residual(w.double(), 0).square().sum() for w in weights])
    assert cpu_kernels.close(values, truth, torch.float32)
    gradients = cpu_kernels.gradients(
        kernels.soft_orthogonality_backward, values, weights, [1] * 3, [0] * 3, residuals, 0, [1, 0, 1]
    )
    assert [g.dtype for g in gradients] == [torch.float32, torch.float16]
    nothing_kept = kernels.soft_orthogonality(weights, [1] * 3, [0] * 3, 1.0, 1.0, False)
    assert torch.equal(nothing_kept[0], values)
    assert nothing_kept[1].numel() == 0


def test_medium_precision_rounds_to_bfloat16_alone():
    weight = torch.randn(70, 130) / 11
    values, residuals = kernels.soft_orthogonality([weight], [1], [0], 1.0, 1.0, True)
    exact, medium = (
        cpu_kernels.gradients(
            kernels.soft_orthogonality_backward, values, [weight], [1], [0], residuals, precision, [1]
        )[0]
        for precision in (0, 2)
    )
    # Triton's interpreter cuts bits off, where a GPU rounds: three times as much.
    assert 1e-4 * exact.norm() < (medium - exact).norm() <= 8e-3 * exact.norm()


def test_one_precision_after_the_other():
    """The launches of one precision are no other's: R, dense, is of float32 or of bfloat16."""
    weights = [near_orthogonal(96, 200), near_orthogonal(37, 40).t(), near_orthogonal(20, 64).bfloat16()]
    ones, sides = [1] * 3, [0, 1, 0]
    _, residuals = kernels.soft_orthogonality(weights, ones, sides, 1.0, 1.0, True)
    for precision in (0, 1, 2, 0, 2):
        gradients = cpu_kernels.gradients(
            kernels.soft_orthogonality_backward, torch.ones(3), weights, ones, sides, residuals, precision, ones
        )
        for gradient, weight, side in zip(gradients, weights, sides, strict=True):
            W = weight.double() if side == 0 else weight.double().t()
            truth = 4 * cpu_kernels.residual(W, 0) @ W
            truth = truth if side == 0 else truth.t()
            rounding = 1e-5 if precision < 2 and weight.dtype is torch.float32 else 2e-2
            assert (gradient.double() - truth).norm() < rounding * truth.norm(), (precision, weight.shape)


def test_zero_residuals_nan_and_inf():
    cpu_kernels.test_nan_and_inf_come_out(float("nan"), 0)
    cpu_kernels.test_nan_and_inf_come_out(float("inf"), 1)
    for matrix in (torch.zeros(6, 6), torch.eye(6), torch.eye(20, 30)):
        start = torch.randn(len(matrix))
        values, residuals = kernels.soft_orthogonality([matrix], [1], [0], 1.0, 1.0, True)
        (gradient,) = cpu_kernels.gradients(
            kernels.soft_orthogonality_backward, values, [matrix], [1], [0], residuals, 0, [1]
        )
        assert not gradient.any()
        values, vectors = kernels.srip([matrix], [1], [0], start, 2, True, True)
        (gradient,) = cpu_kernels.gradients(kernels.srip_backward, values, [matrix], [1], [0], vectors, 2, [1])
        assert values.isfinite().all()
        assert not gradient.any()


def test_bad_arguments_name_the_weight():
    good = torch.randn(4, 4)
    for weights, groups, words in (
        ([good, torch.randn(4, 4, 4)[:, ::2, ::2]], [1, 1], r"weights\[1\].*contiguous"),
        ([good, good.double()], [1, 1], r"weights\[1\].*float16"),
    ):
        with pytest.raises(RuntimeError, match=words):
            kernels.soft_orthogonality(weights, groups, [0, 0], 1.0, 1.0, True)
    with pytest.raises(RuntimeError, match="iterations"):
        kernels.srip([good], [1], [0], torch.randn(4), 0, True, True)
    with pytest.raises(RuntimeError, match="start: expected 4"):
        kernels.srip([good], [1], [0], torch.randn(5), 2, True, True)
