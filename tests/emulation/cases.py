"""What the emulated kernels are asked, and the check of each answer against its definition in float64.

The matrices are small and odd on purpose: whatever a mask, a barrier or a wait is there for happens in one of them.
"""

from functools import cache, partial

import successions
import torch
from guarded import guarded, guarded_like
from truth import residual

from ortho_kernels import reference

ROUNDING = {torch.float64: 1e-14, torch.float32: 3e-7, torch.bfloat16: 4e-3, torch.float16: 5e-4}


def made(order, depth, dtype, layout="along", seed=0):
    """A matrix whose singular values are about one, `along` its depth in memory, `across` it, or `apart` in both.

    `huge` and `tiny` ones are such matrices times 1e5 and 1e-6.
    """
    generator = torch.Generator().manual_seed(1000 * order + depth + seed)
    scale = max(order, depth, 1) ** -0.5
    if layout == "along":
        matrix = torch.randn(order, depth, generator=generator)
    elif layout == "across":
        matrix = torch.randn(depth, order, generator=generator).t()
    elif layout == "unaligned":
        matrix = torch.randn(order * depth + 1, generator=generator)[1:].view(order, depth)
    elif layout in ("unaligned across", "padded across"):
        return made(depth, order, dtype, layout.removesuffix(" across"), seed).t()
    elif layout in ("huge", "tiny"):
        return made(order, depth, dtype, seed=seed).mul_({"huge": 1e5, "tiny": 1e-6}[layout])
    elif layout == "padded":
        matrix = torch.randn(order, depth, generator=generator)
        return _padded(matrix * scale, dtype)
    else:
        matrix = torch.randn(2 * order, 3 * depth, generator=generator)[::2, ::3]
    return guarded_like((matrix * scale).to(dtype)) if layout != "unaligned" else _shifted(matrix * scale, dtype)


def _shifted(matrix, dtype):
    """One number longer at its end, so that it begins at no multiple of 16 bytes."""
    memory = guarded(matrix.numel() + 1, dtype)
    return memory[: matrix.numel()].view(matrix.shape).copy_(matrix)


def _padded(matrix, dtype):
    """Rows that begin at multiples of 16 bytes and end at none, with NaN behind them."""
    order, depth = matrix.shape
    step = 16 // dtype.itemsize
    memory = guarded(order * -(-depth // step) * step, dtype)
    return memory.view(order, -1)[:, :depth].copy_(matrix)


def compute_dtype(matrices):
    return torch.float64 if any(m.dtype is torch.float64 for m in matrices) else torch.float32


def assert_close(given, truth, tolerance, what, peer=None, scale=None):
    """Within the tolerance relative to the truth, or to a scale, or twice the error of a peer, torch's own result."""
    error, allowed = (given.double() - truth).norm(), tolerance * (truth.norm() if scale is None else scale)
    if peer is not None:
        allowed = max(allowed, 2 * (peer.double() - truth).norm())
    assert error <= allowed, f"{what}: off by {error:.2e}, {allowed:.2e} is allowed"


def check_residuals(emulator, matrices, diagonal=1.0, off_diagonal=1.0):
    """Values and residuals; returned for comparison between schedules."""
    C = compute_dtype(matrices)
    values, residuals = emulator.soft_orthogonality(matrices, diagonal, off_diagonal)
    packed = residuals.split([len(m) * (len(m) + 1) // 2 for m in matrices])
    for i, (matrix, kept) in enumerate(zip(matrices, packed, strict=True)):
        W = matrix.double()
        R = residual(W)
        weights = torch.full_like(R, off_diagonal).fill_diagonal_(diagonal)
        weighted = weights * R
        lower = torch.tril_indices(*R.shape).unbind()
        own = residual(matrix.to(C))
        own_weighted = own * weights.to(C)
        # R is a difference: it can't have more digits than the Gram.
        scale = max(R.norm(), (W @ W.T).norm())
        value, largest = (weighted * R).sum(), max(diagonal, off_diagonal)
        assert_close(
            values[i], value, 2 * ROUNDING[C], f"value {i}", (own_weighted * own).sum(), R.norm() * largest * scale
        )
        assert_close(kept, weighted[lower], ROUNDING[C], f"residual {i}", own_weighted[lower], largest * scale)
    return [values, residuals]


def is_spread(order, depth):
    """Whether products take R in 16-bit terms."""
    return order <= depth and order > 64 and depth > 128


def targets_of(matrices, accumulate):
    """What the gradients are written to: tensors of NaN, or of random numbers if they are to be added to these."""
    generator = torch.Generator().manual_seed(5)
    there = [torch.full_like(m, torch.nan) for m in matrices]
    if accumulate:
        there = [t.copy_(torch.randn(t.shape, generator=generator)) for t in there]
    return there, [guarded_like(t) for t in there]


def check_soft_orthogonality(
    emulator, matrices, diagonal=1.0, off_diagonal=1.0, precision=0, wanted=None, accumulate=False
):
    """As above, and gradients."""
    C = compute_dtype(matrices)
    values, residuals = check_residuals(emulator, matrices, diagonal, off_diagonal)
    residuals = guarded_like(residuals)
    factors = guarded_like(torch.linspace(0.5, 1.5, len(matrices), dtype=C))
    there, gradients = targets_of(matrices, accumulate)
    targets = gradients if wanted is None else [g if w else None for g, w in zip(gradients, wanted, strict=True)]
    emulator.soft_orthogonality_backward(factors, matrices, residuals, precision, targets, accumulate)
    for i, matrix in enumerate(matrices):
        W = matrix.double()
        R = residual(W)
        weights = torch.full_like(R, off_diagonal).fill_diagonal_(diagonal)
        weighted, largest = weights * R, max(diagonal, off_diagonal)
        own_weighted = residual(matrix.to(C)) * weights.to(C)
        if wanted is not None and not wanted[i]:
            torch.testing.assert_close(gradients[i], there[i], rtol=0, atol=0, equal_nan=True)
            continue
        allowed = 2 * ROUNDING[matrix.dtype]
        if precision and matrix.dtype is torch.float32:
            allowed = (5e-4, 4e-3)[precision - 1]
        own = 4 * factors[i] * own_weighted @ matrix.to(C)
        factor = 4 * factors[i].double()
        size = factor * max((weighted @ W).norm(), 0.1 * largest * W.norm())
        given = gradients[i].double()
        if accumulate:
            given, size = given - there[i].double(), size + there[i].double().norm()
        truth = factor * weighted @ W
        assert_close(given, truth, allowed, f"gradient {i}", own, size)
        if precision and C is torch.float32 and matrix.dtype is C and is_spread(*matrix.shape):
            # One term of R leaves a larger error than the way that is taken where terms lose digits.
            assert (given - truth).norm() > 1e-6 * truth.norm(), f"gradient {i}: terms were not used"
    return [values, residuals, *gradients]


def check_srip(emulator, matrices, iterations=2, through=True, permutations=None, accumulate=False):
    """As above. `permutations[i]`, sizes and steps, is how the caller numbers the entries of the vectors."""
    C = compute_dtype(matrices)
    orders = [len(m) for m in matrices]
    start = guarded_like(torch.randn(sum(orders), dtype=C, generator=torch.Generator().manual_seed(3)))
    values, vectors = emulator.srip(matrices, start, iterations, through, True, permutations)
    vectors = guarded_like(vectors)
    pairs = iterations if through else 1
    factors = guarded_like(torch.linspace(0.5, 1.5, len(matrices), dtype=C))
    there, gradients = targets_of(matrices, accumulate)
    emulator.srip_backward(factors, matrices, vectors, pairs, gradients, permutations, accumulate)
    for i, (matrix, x) in enumerate(zip(matrices, start.double().split(orders), strict=True)):
        if len(matrix) == 0:
            assert values[i] == 0
            continue
        leaf = matrix.double().requires_grad_()
        R = residual(leaf)
        x = x[caller_indices(permutations[i])] if permutations and permutations[i] else x
        for application in range(iterations):
            before, x = x, R @ x
            if not through and application < iterations - 1:
                x = x.detach()
        sigma = x.norm() / before.norm()
        assert_close(values[i], sigma.detach(), ROUNDING[C], f"value {i}")
        if through:
            (truth,) = torch.autograd.grad(sigma, leaf)
        else:
            u, v = x.detach() / x.detach().norm(), before.detach() / before.detach().norm()
            truth = (torch.outer(u, v) + torch.outer(v, u)) @ leaf.detach()
        truth = factors[i].double() * truth
        given, size = gradients[i].double(), 10 * leaf.detach().norm()
        if accumulate:
            given, size = given - there[i].double(), size + there[i].double().norm()
        error = (given - truth).norm()
        assert error <= ROUNDING[matrix.dtype] * size, f"gradient {i}: off by {error:.2e}"
    return [values, vectors, *gradients]


def check_start_vectors(emulator):
    keys = guarded_like(torch.randint(-(2**62), 2**62, (5000,), generator=torch.Generator().manual_seed(4)))
    step = guarded_like(torch.tensor([12345]))
    drawn = emulator.start_vectors(keys, step)
    torch.testing.assert_close(drawn, reference.start_vectors(keys, step), rtol=2e-6, atol=0)
    return [drawn]


def caller_indices(permutation):
    """The caller's index of each entry, from sizes and steps, the slowest first."""
    index = torch.zeros(1, dtype=torch.int64)
    for size, step in permutation:
        index = (index[:, None] + step * torch.arange(size)).flatten()
    return index


def _case(check, matrices, multiprocessors=2, fast_double=True, **options):
    """Matrices are made anew for each run: a fault may spoil them."""

    def run(emulator, **more):
        emulator.multiprocessors, emulator.fast_double = multiprocessors, fast_double
        return check(emulator, [made(*m) for m in matrices], **options, **more)

    return run


def _every_kind_after_every_other(name, **options):
    kernel, check = successions.KERNELS[name], CHECKS[name.partition(",")[0]]
    lists = cache(lambda: [_case(check, *drawn, **options) for drawn in successions.lists_of(kernel)])
    return lambda emulator: [result for run in lists() for result in run(emulator)]


def _so(*matrices, **options):
    return _case(check_soft_orthogonality, matrices, **options)


def _srip(*matrices, **options):
    return _case(check_srip, matrices, **options)


f64, f32, bf16, f16 = torch.float64, torch.float32, torch.bfloat16, torch.float16

# Orders up to 64 and matrices within 128 x 128 are computed in double. Depths of others are cut into parts of 256 or less.
CASES = {
    "residual, float32": _so((70, 45, f32), (33, 52, f32), (5, 300, f32), diagonal=0.5, off_diagonal=2.0),
    "residual, float32 across": _so((68, 45, f32, "across"), (9, 300, f32, "across")),
    "residual, float32 apart": _so((20, 30, f32, "apart"), (66, 36, f32, "unaligned")),
    "residual, float16 terms": _so((68, 132, f32), (72, 136, f32, "across"), diagonal=0.5, off_diagonal=2.0),
    "residual, float16 terms apart": _so((65, 130, f32, "apart"), (66, 131, f32, "unaligned")),
    "residual, float16 terms of several tiles": _so((131, 140, f32)),
    "residual, float16 terms in parts": _so((67, 272, f32), (3, 2, f32)),
    "residual, huge and tiny": _so((66, 132, f32, "huge"), (66, 132, f32, "tiny")),
    "residual, padded rows": _so((66, 141, f32, "padded"), (20, 41, bf16, "padded"), (70, 137, bf16, "padded across")),
    "residual, float64": _so((66, 19, f64), (10, 300, f64), (12, 30, f64, "across"), (65, 7, f64, "apart")),
    "residual, bfloat16": _so((66, 1100, bf16), (66, 136, bf16), (20, 41, bf16, "across"), (70, 130, bf16, "across")),
    "residual, float16": _so((66, 134, f16), (24, 40, f16, "across"), (67, 130, f16, "apart")),
    "residual, mixed": _so((9, 20, f64), (10, 20, f32), (11, 20, bf16), (70, 20, f16), (66, 9, f32, "across")),
    "residual, empty": _so((0, 5, f32), (5, 0, f32), (130, 0, f32), (3, 4, f32), (0, 0, f32), (1, 2, f32)),
    "product, high": _so((70, 45, f32), (70, 145, f32), (68, 132, f32, "across"), precision=1),
    "product, medium": _so((70, 45, f32), (70, 145, f32), (68, 132, f32, "across"), precision=2),
    "product, some wanted": _so((30, 20, f32), (31, 21, f32), (32, 22, f32), wanted=[True, False, True]),
    "srip, float32": _srip((70, 45, f32), (13, 200, f32), (300, 40, f32), (5, 3, f32)),
    "srip, float32 across": _srip((70, 45, f32, "across"), (13, 90, f32, "across"), (280, 40, f32, "across")),
    "srip, many strips": _srip((5, 1100, f32, "across"), (6, 1000, f32)),
    "srip, along the order after along the depth": _srip(
        (3, 40, f32), (3, 40, f32), (30, 40, f32, "across"), multiprocessors=1
    ),
    "srip, one application": _srip((70, 45, f32), (20, 30, f32, "apart"), iterations=1),
    "srip, five applications": _srip((70, 40, f32), (20, 33, f64, "across"), iterations=5),
    "srip, envelope": _srip((70, 45, f32), (20, 30, f32, "across"), iterations=3, through=False),
    "srip, halves": _srip((70, 45, bf16), (20, 30, f16, "across"), (80, 30, bf16, "across")),
    "srip, longer orders than stay in registers": _srip(
        (1030, 12, f32), (1030, 5, f32), (1036, 20, f32, "across"), (600, 24, bf16), (2056, 9, bf16, "across")
    ),
    "srip, padded rows": _srip((20, 41, f32, "padded"), (24, 37, bf16, "padded across"), (9, 24, f32, "unaligned")),
    "srip, strips of several blocks": _srip((64, 700, f32), (40, 2600, f32, "across"), multiprocessors=3),
    "srip, more vectors than four": _srip((1100, 9, f32), (1036, 9, f32, "across"), (9, 40, bf16), iterations=3),
    "srip, empty": _srip((0, 5, f32), (5, 0, f32), (3, 4, f32), (1, 1, f32), (270, 1, f32)),
    "srip, entries in another order": _srip(
        (72, 30, f32), (12, 20, f32), permutations=[[(9, 1), (8, 9)], [(3, 1), (4, 3)]]
    ),
    "start vectors": check_start_vectors,
}
CHECKS = {
    "residual": check_residuals,
    "product": partial(check_soft_orthogonality, precision=1),
    "srip": check_srip,
}
SUCCESSIONS = {
    f"{name}, every kind after every other": _every_kind_after_every_other(name) for name in successions.KERNELS
} | {
    f"{name} in two floats, every kind after every other": _every_kind_after_every_other(name, fast_double=False)
    for name in ("srip, passes", "srip, rows")
}
CASES |= SUCCESSIONS
LONG = {
    *SUCCESSIONS,
    "residual, huge and tiny",
    "residual, float16 terms of several tiles",
    "residual, float16 terms in parts",
}


# Those in which one warp runs as far ahead of the others as it can, for cases that take long.
GREEDY_WAYS = [("first warp first", True), ("last warp first", True), ("random", True)]


def run_in_all_ways(emulator, name):
    """Runs a case under every schedule, with early and late copies: all must agree to the bit."""
    first = None
    if name in SUCCESSIONS:  # a block that runs alone takes the items that the succession is made for
        ways = emulator.in_ways(GREEDY_WAYS, resident_blocks=1)
    else:
        ways = emulator.in_ways(GREEDY_WAYS) if name in LONG else emulator.in_all_ways()
    for schedule, late in ways:
        results = CASES[name](emulator)
        first = first or results
        for given, expected in zip(results, first, strict=True):
            same = torch.equal(given.contiguous().view(torch.uint8), expected.contiguous().view(torch.uint8))
            assert same, f"other bits with schedule {schedule!r}, copies {'late' if late else 'early'}"
