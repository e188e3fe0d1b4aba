"""The operators, called directly, against their definitions in float64: the CPU's and, with `-m gpu`, a GPU's."""

import pytest
import torch
from truth import residual

from ortho_kernels.backends import cpu

pytestmark = pytest.mark.usefixtures("kernels")
ops = torch.ops.ortho_kernels

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
ROUNDING = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}


def channels_last(*shape):
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


# Each makes one weight, with its number of groups.
WEIGHTS = {
    "1 x 1": lambda: (torch.randn(1, 1), 1),
    "1 x 9": lambda: (torch.randn(1, 9), 1),
    "9 x 1": lambda: (torch.randn(9, 1), 1),
    "odd": lambda: (torch.randn(13, 37), 1),
    "one tile": lambda: (torch.randn(96, 300), 1),
    "several tiles": lambda: (torch.randn(261, 517), 1),
    "tall": lambda: (torch.randn(300, 70), 1),
    "no columns": lambda: (torch.randn(5, 0), 1),
    "no rows": lambda: (torch.randn(0, 5), 1),
    "transposed": lambda: (torch.randn(70, 90).t(), 1),
    "every other row and column": lambda: (torch.randn(60, 200)[::2, ::2], 1),
    "overlapping": lambda: (torch.randn(400).as_strided((20, 90), (3, 2)), 1),
    "repeated row": lambda: (torch.randn(1, 90).expand(30, 90), 1),
    "convolution": lambda: (torch.randn(24, 8, 3, 3), 1),
    "grouped": lambda: (torch.randn(24, 5, 3, 3), 4),
    "depthwise": lambda: (torch.randn(17, 1, 3, 3), 17),
    "channels_last": lambda: (channels_last(24, 8, 3, 3), 1),
    "channels_last, grouped": lambda: (channels_last(24, 6, 3, 2), 2),
    "channels_last, tall": lambda: (channels_last(150, 5, 3, 3), 1),
    "rows of channels_last": lambda: (channels_last(48, 5, 3, 3)[::2], 1),
    "convolution in time": lambda: (torch.randn(6, 4, 5), 1),
}


def matrices(weight, groups):
    return list(weight.detach().double().reshape(weight.shape[0], weight.shape[1:].numel()).chunk(groups))


def made(name, dtype):
    torch.manual_seed(len(name))
    weight, groups = WEIGHTS[name]()
    strides = weight.stride()
    weight = (weight / max(1, weight[0].numel() if weight.numel() else 1) ** 0.5).to(dtype)
    if weight.stride() != strides:  # arithmetic makes dense tensors: other numbers, laid out as these were
        span = 1 + sum((size - 1) * stride for size, stride in zip(weight.shape, strides, strict=True))
        weight = (torch.randn(span) / 8).to(dtype).as_strided(weight.shape, strides)
    return weight, groups


def close(given, truth, dtype, slack=1.0, scale=None):
    """Within the rounding of the dtype, relative in norm to the truth, or to `scale` where that is larger."""
    truth = truth.double()
    size = truth.norm() if scale is None else max(truth.norm(), scale)
    return (given.double() - truth).norm() <= slack * ROUNDING[dtype] * size + 1e-30


def gradients(backward, factors, weights, groups, sides, kept, option, wanted=None):
    """What a backward operator writes into tensors of NaN, one for each wanted weight."""
    wanted = [1] * len(weights) if wanted is None else wanted
    targets = [torch.full_like(weight, torch.nan) for weight, want in zip(weights, wanted, strict=True) if want]
    backward(factors, weights, groups, sides, kept, option, targets, wanted, False)
    return targets


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("side", [0, 1], ids=["rows", "cols"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_soft_orthogonality(name, side, dtype):
    weight, groups = made(name, dtype)
    compute = torch.float64 if dtype is torch.float64 else torch.float32
    values, residuals = ops.soft_orthogonality([weight], [groups], [side], 0.5, 2.0, True)
    factors = torch.linspace(0.5, 1.5, groups, dtype=compute)
    (gradient,) = gradients(ops.soft_orthogonality_backward, factors, [weight], [groups], [side], residuals, 0)

    weighted, truths, expected = [], [], []
    for g, matrix in enumerate(matrices(weight, groups)):
        R = residual(matrix, side)
        entries = torch.full_like(R, 2.0).fill_diagonal_(0.5)
        weighted.append(entries * R)
        truths.append((entries * R * R).sum())
        product = weighted[-1] @ matrix if side == 0 else matrix @ weighted[-1]
        expected.append(4 * factors[g].double() * product)
    assert values.dtype is residuals.dtype is compute
    assert close(values, torch.stack(truths), compute)
    # Residuals are in the order in which the columns of a weight lie in memory: their norm is the same in any order.
    squares = sum(len(R) * (len(R) + 1) // 2 for R in weighted)
    assert residuals.numel() == squares
    lower = torch.cat([R[torch.tril_indices(*R.shape).unbind()] for R in weighted])
    assert close(residuals.norm(), lower.norm(), compute)
    assert close(gradient, torch.cat(expected).reshape(weight.shape), dtype, slack=2)


@pytest.mark.parametrize("through", [True, False], ids=["through", "envelope"])
@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("side", [0, 1], ids=["rows", "cols"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_srip(name, side, dtype, iterations, through):
    weight, groups = made(name, dtype)
    compute = torch.float64 if dtype is torch.float64 else torch.float32
    parts = matrices(weight, groups)
    orders = [part.shape[side] for part in parts]
    start = torch.randn(sum(orders), dtype=compute)
    values, vectors = ops.srip([weight], [groups], [side], start, iterations, through, True)
    factors = torch.linspace(0.5, 1.5, groups, dtype=compute)
    pairs = iterations if through else 1
    (gradient,) = gradients(ops.srip_backward, factors, [weight], [groups], [side], vectors, pairs)
    assert vectors.numel() == pairs * 2 * sum(orders)

    expected, given = [], vectors.split([2 * pairs * n for n in orders])
    for g, (part, x) in enumerate(zip(parts, start.double().split(orders), strict=True)):
        leaf = part.clone().requires_grad_()
        if len(x) == 0:
            expected.append(torch.zeros_like(part))
            continue
        R = residual(leaf, side)
        for i in range(iterations):
            before, x = x, R @ x
            if not through and i < iterations - 1:
                x = x.detach()
        sigma = x.norm() / before.norm()
        assert close(values[g], sigma.detach(), compute, slack=2)
        warm, last = given[g].view(pairs, 2, -1)[0, 0].double(), x.detach()
        assert warm @ last > (1 - 1e-5) * warm.norm() * last.norm()
        if through:
            (truth,) = torch.autograd.grad(sigma, leaf)
        else:
            u, v = x.detach() / x.detach().norm(), before.detach() / before.detach().norm()
            pair = torch.outer(u, v) + torch.outer(v, u)
            truth = pair @ part if side == 0 else part @ pair
        expected.append(factors[g].double() * truth)
    # Where a gradient nearly vanishes, it is a difference of terms of the size of 2 W.
    scale = 2 * weight.double().norm()
    assert close(gradient, torch.cat(expected).reshape(weight.shape), dtype, slack=10, scale=scale)


def test_mixed_dtypes_compute_in_the_widest():
    weights = [(torch.randn(20, 40) / 6).to(dtype) for dtype in DTYPES]
    values, residuals = ops.soft_orthogonality(weights, [1] * 4, [0] * 4, 1.0, 1.0, True)
    assert values.dtype is torch.float64
    truth = torch.stack([residual(w.double(), 0).square().sum() for w in weights])
    assert close(values, truth, torch.float64)
    wanted, factors = [1, 0, 1, 1], torch.linspace(0.5, 1.5, 4, dtype=torch.float64)
    given = gradients(ops.soft_orthogonality_backward, factors, weights, [1] * 4, [0] * 4, residuals, 0, wanted)
    for index, gradient in zip((0, 2, 3), given, strict=True):
        W = weights[index].double()
        assert close(gradient, 4 * factors[index] * residual(W, 0) @ W, weights[index].dtype, slack=2)


@pytest.mark.parametrize(
    "name", ["1 x 9", "odd", "several tiles", "tall", "transposed", "channels_last, tall", "grouped"]
)
def test_medium_precision_rounds_the_backward_of_float32_alone(kernels, name):
    """On a CPU that has dot products of bfloat16, and on a GPU; elsewhere, and for other dtypes, nothing changes."""
    rounds = kernels != "cpu" or cpu.CpuBackend().facts()["CPU level"] == "avx512_bf16"
    for dtype in DTYPES:
        weight, groups = made(name, dtype)
        side = int(weight.shape[0] // groups > weight[0].numel())  # the larger Gram's terms cancel
        values, residuals = ops.soft_orthogonality([weight], [groups], [side], 1.0, 1.0, True)
        exact, high, medium = (
            gradients(ops.soft_orthogonality_backward, values, [weight], [groups], [side], residuals, precision)[0]
            for precision in range(3)
        )
        assert torch.equal(exact, high) or (kernels != "cpu" and dtype is torch.float32)  # tf32 is a GPU's
        assert (high.double() - exact.double()).norm() <= 1e-3 * exact.double().norm()
        assert (medium.double() - exact.double()).norm() <= 4e-3 * exact.double().norm()
        assert torch.equal(exact, medium) != (rounds and dtype is torch.float32)


def test_empty_list_and_nothing_kept():
    values, residuals = ops.soft_orthogonality([torch.randn(3, 4)], [1], [0], 1.0, 1.0, False)
    assert residuals.numel() == 0
    assert values.numel() == 1
    values, vectors = ops.srip([torch.randn(3, 4)], [1], [0], torch.randn(3), 3, True, False)
    assert vectors.numel() == 0
    kept, _ = ops.srip([torch.randn(3, 4)], [1], [0], torch.randn(3), 3, True, True)
    assert kept.numel() == 1


@pytest.mark.parametrize(
    "matrix", [torch.zeros(6, 6), torch.eye(6), torch.eye(6, 9)], ids=["zero", "identity", "orthogonal"]
)
def test_zero_residuals_and_zero_matrices_have_finite_values(matrix):
    matrix = matrix.to(torch.get_default_device())
    values, residuals = ops.soft_orthogonality([matrix], [1], [0], 1.0, 1.0, True)
    given = gradients(ops.soft_orthogonality_backward, values, [matrix], [1], [0], residuals, 0)
    assert values.isfinite().all()
    assert not given[0].any()  # R W = 0 in all three
    values, vectors = ops.srip([matrix], [1], [0], torch.randn(6), 2, True, True)
    given = gradients(ops.srip_backward, values, [matrix], [1], [0], vectors, 2)
    assert values.isfinite().all()
    assert not given[0].any()


def test_a_zero_start_gives_zero():
    weight = torch.randn(100, 300)
    values, vectors = ops.srip([weight], [1], [0], torch.zeros(100), 2, True, True)
    assert values.item() == 0
    assert not vectors.any()


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("side", [0, 1])
def test_nan_and_inf_come_out(poison, side):
    weight = torch.randn(80, 90)
    weight[79, 3] = poison
    weights = [torch.randn(5, 6), weight]
    values, residuals = ops.soft_orthogonality(weights, [1, 1], [side] * 2, 1.0, 1.0, True)
    given = gradients(ops.soft_orthogonality_backward, torch.ones(2), weights, [1, 1], [side] * 2, residuals, 0)
    assert values.isfinite().tolist() == [True, False]
    assert [bool(g.isfinite().all()) for g in given] == [True, False]
    start = torch.randn(sum(w.shape[side] for w in weights))
    values, vectors = ops.srip(weights, [1, 1], [side] * 2, start, 2, True, True)
    given = gradients(ops.srip_backward, torch.ones(2), weights, [1, 1], [side] * 2, vectors, 2)
    assert values.isfinite().tolist() == [True, False]
    assert [bool(g.isfinite().all()) for g in given] == [True, False]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_every_half_number_is_read_exactly_and_rounded_as_torch_does(dtype):
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    column = patterns[patterns.isfinite()].reshape(-1, 1)
    # Rank one with a single depth entry: gradient = 4 g (w^2 - 1) w for each 1 x 1 matrix.
    count = len(column)
    values, residuals = ops.soft_orthogonality([column], [count], [0], 1.0, 1.0, True)
    exact = column.double().square() - 1
    assert torch.equal(residuals, exact.float().flatten())
    (gradient,) = gradients(ops.soft_orthogonality_backward, torch.ones(count), [column], [count], [0], residuals, 0)
    truth = (residuals.reshape(-1, 1) * column.float() * 4).to(dtype)
    assert torch.equal(gradient.nan_to_num(), truth.nan_to_num())
    assert values.numel() == count


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("side", [0, 1], ids=["rows", "cols"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_gradients_are_added_to_what_is_there(name, side, dtype):
    weight, groups = made(name, dtype)
    check_accumulation([weight], [groups], [side], dtype)


def test_gradients_of_matrices_that_all_threads_share_are_added():
    weights = [torch.randn(shape) / shape[1] ** 0.5 for shape in ((261, 517), (300, 14_000), (16, 300_000))]
    check_accumulation(weights, [1] * 3, [0] * 3, torch.float32)


def check_accumulation(weights, groups, sides, dtype):
    _, residuals = ops.soft_orthogonality(weights, groups, sides, 0.5, 2.0, True)
    orders = [count * matrices(w, count)[0].shape[side] for w, count, side in zip(weights, groups, sides, strict=True)]
    start = torch.randn(sum(orders), dtype=residuals.dtype)
    _, vectors = ops.srip(weights, groups, sides, start, 2, True, True)
    factors = torch.linspace(0.5, 1.5, sum(groups), dtype=residuals.dtype)
    for backward, kept, option in (
        (ops.soft_orthogonality_backward, residuals, 0),
        (ops.srip_backward, vectors, 2),
    ):
        alone = gradients(backward, factors, weights, groups, sides, kept, option)
        there = [torch.randn_like(w) for w in weights]
        sums = [t.clone() for t in there]
        backward(factors, weights, groups, sides, kept, option, sums, [1] * len(weights), True)
        for added, before, gradient in zip(sums, there, alone, strict=True):
            assert close(added, before.double() + gradient.double(), dtype, slack=2, scale=gradient.double().norm())


def test_a_gradient_may_have_other_strides_than_its_weight():
    weight = torch.randn(70, 90)
    values, residuals = ops.soft_orthogonality([weight], [1], [0], 1.0, 1.0, True)
    _, vectors = ops.srip([weight], [1], [0], torch.randn(70), 2, True, True)
    for backward, kept, option in (
        (ops.soft_orthogonality_backward, residuals, 0),
        (ops.srip_backward, vectors, 2),
    ):
        (plain,) = gradients(backward, values, [weight], [1], [0], kept, option)
        for target in (torch.empty(90, 70).t(), torch.empty(140, 270)[::2, ::3]):
            backward(values, [weight], [1], [0], kept, option, [target], [1], False)
            torch.testing.assert_close(target, plain)


def test_gradients_that_do_not_fit_are_refused_by_name():
    weight = torch.randn(4, 3, 2, 2)
    values, residuals = ops.soft_orthogonality([weight], [1], [0], 1.0, 1.0, True)

    def backward(targets, wanted, factors=values):
        ops.soft_orthogonality_backward(factors, [weight], [1], [0], residuals, 0, targets, wanted, False)

    for target, words in (
        (weight.double(), "the gradient of weights.0.: expected the weight's shape, dtype and device"),
        (torch.empty(4, 12), "the gradient of weights.0.: expected the weight's shape"),
        (torch.empty_like(weight, memory_format=torch.channels_last), "in the order of the weight's"),
    ):
        with pytest.raises(RuntimeError, match=words):
            backward([target], [1])
    with pytest.raises(RuntimeError, match="one gradient for each wanted weight"):
        backward([], [1])
    with pytest.raises(RuntimeError, match="one `wanted` for each weight"):
        backward([weight], [1, 1])
    with pytest.raises(RuntimeError, match="factors: expected 1 contiguous numbers of float32"):
        backward([weight.clone()], [1], values.double())


def test_bad_arguments_name_the_weight():
    good = torch.randn(4, 4)
    apart = torch.randn(4, 4, 4)[:, ::2, ::2]
    for weights, groups, words in (
        ([good, apart], [1, 1], r"weights\[1\].*contiguous"),
        ([good, good.int()], [1, 1], r"weights\[1\].*float"),
        ([good, good[0]], [1, 1], r"weights\[1\].*dimensions"),
        ([good, good], [1, 3], r"weights\[1\].*groups"),
    ):
        with pytest.raises(RuntimeError, match=words):
            ops.soft_orthogonality(weights, groups, [0, 0], 1.0, 1.0, True)
    with pytest.raises(RuntimeError, match="iterations"):
        ops.srip([good], [1], [0], torch.randn(4), 0, True, True)
    with pytest.raises(RuntimeError, match="start: expected 4"):
        ops.srip([good], [1], [0], torch.randn(5), 2, True, True)


def everything(weights, sides):
    groups = [1] * len(weights)
    ones = torch.ones(len(weights))
    start = torch.arange(1.0, 1 + sum(w.shape[side] for w, side in zip(weights, sides, strict=True))).sin()
    values, residuals = ops.soft_orthogonality(weights, groups, sides, 1.0, 1.0, True)
    sigmas, vectors = ops.srip(weights, groups, sides, start, 2, True, True)
    return [
        values,
        residuals,
        sigmas,
        vectors,
        *gradients(ops.soft_orthogonality_backward, ones, weights, groups, sides, residuals, 0),
        *gradients(ops.srip_backward, ones, weights, groups, sides, vectors, 2),
    ]


def test_same_bits_for_any_number_of_threads():
    weights = [torch.randn(300, 3000), torch.randn(600, 700), torch.randn(3, 3), torch.randn(14_000, 300)]
    sides, threads = [0, 0, 0, 1], torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3, 2):
            torch.set_num_threads(count)
            results.append(everything(weights, sides))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_several_python_threads_at_once():
    from concurrent.futures import ThreadPoolExecutor

    lists = [[torch.randn(70 + 30 * i, 400), torch.randn(20, 20)] for i in range(4)]
    truth = [everything(weights, [0, 0]) for weights in lists]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for results, expected in zip(pool.map(lambda w: everything(w, [0, 0]), lists), truth, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))
