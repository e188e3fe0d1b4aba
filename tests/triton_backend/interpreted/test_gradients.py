"""Backward operators write into given gradients, or add to them: rounded once, wherever they lie, and nothing else."""

import pytest
import torch
from matrices import STORAGES, cpu_kernels

from ortho_kernels.backends.triton import operators as kernels

WEIGHTS = [
    torch.randn(20, 40) / 6,
    torch.randn(33, 24, dtype=torch.bfloat16).t() / 5,
    cpu_kernels.channels_last(24, 6, 3, 2) / 5,
    torch.randn(64, 32, dtype=torch.float16).t() / 6,
    torch.randn(150, 5, 3, 3) / 7,
    torch.randn(64, 32) / 7,
    torch.randn(16, 32, dtype=torch.bfloat16) / 6,
]
GROUPS = [1, 1, 2, 1, 1, 4, 1]
SIDES = [0, 1, 0, 0, 1, 0, 0]
FACTORS = torch.linspace(0.5, 2, sum(GROUPS))


def soft_orthogonality(gradients, wanted, accumulate):
    _, residuals = kernels.soft_orthogonality(WEIGHTS, GROUPS, SIDES, 1.0, 1.0, True)
    kernels.soft_orthogonality_backward(FACTORS, WEIGHTS, GROUPS, SIDES, residuals, 0, gradients, wanted, accumulate)


def srip(gradients, wanted, accumulate):
    orders = [w.shape[0] if side == 0 else w[0].numel() for w, side in zip(WEIGHTS, SIDES, strict=True)]
    start = torch.randn(sum(orders), generator=torch.Generator().manual_seed(1))
    _, vectors = kernels.srip(WEIGHTS, GROUPS, SIDES, start, 2, True, True)
    kernels.srip_backward(FACTORS, WEIGHTS, GROUPS, SIDES, vectors, 2, gradients, wanted, accumulate)


def truth():
    """The gradients of soft orthogonality in float64."""
    factors = iter(FACTORS.double())
    for weight, groups, side in zip(WEIGHTS, GROUPS, SIDES, strict=True):
        parts = []
        for matrix in cpu_kernels.matrices(weight, groups):
            R = cpu_kernels.residual(matrix, side)
            parts.append(4 * next(factors) * (R @ matrix if side == 0 else matrix @ R))
        yield torch.cat(parts).reshape(weight.shape)


@pytest.mark.parametrize("backward", [soft_orthogonality, srip])
def test_written_and_added(backward):
    fresh = [torch.full_like(weight, float("nan")) for weight in WEIGHTS]
    backward(fresh, [1] * len(WEIGHTS), False)
    before = [torch.randn_like(weight) for weight in WEIGHTS]
    added = [each.clone() for each in before]
    backward(added, [1] * len(WEIGHTS), True)
    for given, old, new, weight in zip(added, before, fresh, WEIGHTS, strict=True):
        assert given.stride() == new.stride() == weight.stride()
        assert cpu_kernels.close(given, old.double() + new.double(), weight.dtype)
        assert weight.dtype is not torch.float32 or torch.equal(given, old + new)


def test_values_written_are_those_of_float64():
    gradients = [torch.empty_like(weight) for weight in WEIGHTS]
    soft_orthogonality(gradients, [1] * len(WEIGHTS), False)
    for gradient, exact, weight in zip(gradients, truth(), WEIGHTS, strict=True):
        assert cpu_kernels.close(gradient, exact, weight.dtype, slack=2)


def test_a_sum_is_rounded_once():
    """Half an ulp of what is there, and a little more: rounded before it is added, the little more would be lost."""
    weight = torch.full((1, 1), 1.5, dtype=torch.float16)
    _, residuals = kernels.soft_orthogonality([weight], [1], [0], 1.0, 1.0, True)
    assert residuals.item() == 1.25
    factor = torch.tensor([(0.5 + 2**-13) / (4 * 1.25 * 1.5)])
    gradient = torch.full((1, 1), 1024.0, dtype=torch.float16)  # its ulp is 1
    kernels.soft_orthogonality_backward(factor, [weight], [1], [0], residuals, 0, [gradient], [1], True)
    assert gradient.item() == 1025


@pytest.mark.parametrize("backward", [soft_orthogonality, srip])
@pytest.mark.parametrize("accumulate", [False, True])
def test_one_buffer_a_dtype_with_frozen_weights_left_out(backward, accumulate):
    """As the gradients of a model lie, some of them not aligned; what lies between them is not written."""
    wanted = [1, 1, 0, 1, 1, 1, 0]
    alone = [torch.ones_like(weight) for weight, want in zip(WEIGHTS, wanted, strict=True) if want]
    backward(alone, wanted, accumulate)
    buffers = {dtype: torch.ones(12_000, dtype=dtype) for dtype in STORAGES}
    ends, gradients = dict.fromkeys(STORAGES, 8), []
    for place, (weight, want) in enumerate(zip(WEIGHTS, wanted, strict=True)):
        if want:
            begin = ends[weight.dtype] + place
            gradients.append(buffers[weight.dtype][begin:].as_strided(weight.shape, weight.stride()))
            ends[weight.dtype] = begin + weight.numel()
    backward(gradients, wanted, accumulate)
    for given, expected in zip(gradients, alone, strict=True):
        assert torch.equal(given, expected)
        given.fill_(1)
    assert all((buffer == 1).all() for buffer in buffers.values())


@pytest.mark.parametrize("backward", [soft_orthogonality, srip])
def test_gradients_of_other_strides(backward):
    """Columns in the same order, rows apart; and of a matrix any strides."""
    dense = [torch.empty_like(weight) for weight in WEIGHTS]
    backward(dense, [1] * len(WEIGHTS), False)
    apart = [torch.zeros(2 * len(W), *W.shape[1:], dtype=W.dtype)[::2] for W in WEIGHTS]
    apart[2] = torch.zeros(48, 6, 3, 2).contiguous(memory_format=torch.channels_last)[::2]
    apart[5] = torch.zeros(32, 64).t()
    backward(apart, [1] * len(WEIGHTS), False)
    for given, expected in zip(apart, dense, strict=True):
        assert torch.equal(given, expected)


def test_gradients_that_do_not_fit_are_named():
    weight = torch.randn(4, 3, 2, 2)
    _, residuals = kernels.soft_orthogonality([weight] * 2, [1, 1], [0, 0], 1.0, 1.0, True)

    def backward(gradients, wanted):
        factors = torch.ones(2)
        kernels.soft_orthogonality_backward(
            factors, [weight] * 2, [1, 1], [0, 0], residuals, 0, gradients, wanted, False
        )

    channels_last = torch.empty(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    for wrong in (channels_last, weight.half(), torch.empty(4, 3, 4)):
        with pytest.raises(RuntimeError, match=r"weights\[1\]: its gradient must have"):
            backward([torch.empty_like(weight), wrong], [1, 1])
    with pytest.raises(RuntimeError, match="gradient for each that is wanted"):
        backward([weight], [1, 1])
    with pytest.raises(RuntimeError, match="`wanted` for 2 weights"):
        backward([weight], [1])
