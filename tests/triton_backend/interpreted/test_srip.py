"""SRIP and its gradient against float64, over the shapes of the CPU kernels' tests."""

import pytest
import torch
from matrices import NAMES, SIDES, STORAGES, cpu_kernels

from ortho_kernels.backends.triton import heuristics, tables
from ortho_kernels.backends.triton import operators as kernels
from ortho_kernels.backends.triton.launch import Launch
from ortho_kernels.backends.triton.plan import HELD_SHAPES

CASES = [(name, side, torch.float32, 2, True) for name in NAMES for side in SIDES]
CASES += [("odd", 0, dtype, 3, True) for dtype in STORAGES[1:]]
CASES += [("channels_last, tall", 1, torch.float32, iterations, True) for iterations in (1, 9)]
CASES += [("convolution", 0, torch.float32, 3, False)]


@pytest.fixture(autouse=True)
def own_operators(monkeypatch):
    monkeypatch.setattr(cpu_kernels, "ops", kernels)


@pytest.mark.parametrize(("name", "side", "dtype", "iterations", "through"), CASES, ids=lambda each: str(each))
def test_as_the_cpu_kernels(name, side, dtype, iterations, through):
    cpu_kernels.test_srip(name, side, dtype, iterations, through)


def everything(weights, through=True):
    count = len(weights)
    start = torch.randn(sum(map(len, weights)), generator=torch.Generator().manual_seed(3))
    values, vectors = kernels.srip(weights, [1] * count, [0] * count, start, 2, through, True)
    backward = kernels.srip_backward
    return [
        values,
        vectors,
        *cpu_kernels.gradients(backward, values, weights, [1] * count, [0] * count, vectors, 1 + through),
    ]


WEIGHTS = [torch.randn(40, 600) / 24, torch.randn(5, 33) / 5, torch.randn(300, 40) / 6, torch.randn(33, 64).t() / 5]


def test_every_tile_of_a_pass_is_right():
    """Orders that each of the tiles holds, by rows and by columns, and such that none does."""
    tile = heuristics.replace(heuristics.TABLE[heuristics.INTERPRETER].passes, rows=64, columns=4)
    weights = [torch.randn(n, 72) / 8 for n in (7, 8, 9, 16, 30, 32, 33, 60, 64, 65, 130)]
    weights += [torch.randn(72, n).t() / 8 for n in (8, 16, 32, 64, 132)]
    with tables.configured(heuristics.replace(heuristics.TABLE[heuristics.INTERPRETER], passes=tile)):
        place = tables.weight_place(weights, [1] * len(weights), [0] * len(weights))
        shapes = {(item.shape, place.device.plan.matrices[item.matrix].view.layout)
                  for item in place.device.plan.passes()[torch.float32]}  # fmt: skip
        assert shapes >= {(shape, layout) for shape in range(HELD_SHAPES + 1) for layout in (0, 1)}
        values, _, *gradients = everything(weights)
    start = torch.randn(sum(map(len, weights)), generator=torch.Generator().manual_seed(3)).split([*map(len, weights)])
    for weight, x, value, gradient in zip(weights, start, values, gradients, strict=True):
        leaf = weight.double().requires_grad_()
        R = cpu_kernels.residual(leaf, 0)
        u = R @ x.double()
        sigma = (R @ u).norm() / u.norm()
        (truth,) = torch.autograd.grad(sigma, leaf, sigma)
        assert abs(value.item() / sigma.item() - 1) < 1e-6, weight.shape
        assert (gradient.double() - truth).norm() < 1e-6 * truth.norm(), weight.shape


def test_two_launches_for_each_application_of_R(monkeypatch):
    launched = []

    def run(launch, kernel, *arguments):
        launched.append(kernel.fn.__name__)
        run_launch(launch, kernel, *arguments)

    run_launch = Launch.run
    monkeypatch.setattr(Launch, "run", run)
    for through, applications in ((True, 3), (False, 2)):
        everything(WEIGHTS, through)
        assert launched == [
            "begin_iteration", *["apply_residuals", "combine_sums"] * applications, "finish_iteration", "rank_updates",
        ]  # fmt: skip
        launched.clear()


def test_the_same_bits_twice():
    assert all(torch.equal(a, b) for a, b in zip(everything(WEIGHTS), everything(WEIGHTS), strict=True))


def test_a_zero_start_gives_zero():
    values, vectors = kernels.srip([torch.randn(100, 300)], [1], [0], torch.zeros(100), 2, True, True)
    assert values.item() == 0
    assert not vectors.any()


def test_digits_near_orthogonality():
    shapes = [(1, 7), (10, 130), (17, 40), (64, 147), (96, 257), (300, 500)]
    weights = [torch.nn.init.orthogonal_(torch.empty(shape)) + 1e-3 * torch.randn(shape) for shape in shapes]
    starts = [torch.randn(len(weight)) for weight in weights]
    ones, sides = [1] * len(weights), [0] * len(weights)
    values, vectors = kernels.srip(weights, ones, sides, torch.cat(starts), 2, True, True)
    gradients = cpu_kernels.gradients(
        kernels.srip_backward, torch.ones(len(weights)), weights, ones, sides, vectors, 2, ones
    )
    for shape, weight, x, value, gradient in zip(shapes, weights, starts, values, gradients, strict=True):
        leaf = weight.double().requires_grad_()
        R, u = cpu_kernels.residual(leaf, 0), x.double()
        u = R @ u
        sigma = (R @ u).norm() / u.norm()
        (truth,) = torch.autograd.grad(sigma, leaf)
        assert abs(value.item() / sigma.item() - 1) < 1e-5, shape
        assert (gradient.double() - truth).norm() < 1e-5 * truth.norm(), shape
