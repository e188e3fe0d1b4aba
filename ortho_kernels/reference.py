"""The penalties in plain torch: what every kernel of this package computes.

He, Du and Ma, "Preventing Dimensional Collapse in Self-Supervised Learning via Orthogonality Regularization" (NeurIPS
2024, arXiv 2411.00392), add `gamma * sum over encoder weights of penalty(W)` to a self-supervised loss. W holds one filter
a row. `paper_so` and `paper_srip` are the paper's formulas, of one matrix. `paper_ocnn` is that of Wang, Chen, Chakraborty
and Yu, "Orthogonal Convolutional Neural Networks" (CVPR 2020, arXiv 1911.12207), of one kernel K.

`soft_orthogonality` and `srip` are the same over lists of weights, with options. They compute the smaller of W W^T and
W^T W by default: both have the same nonzero eigenvalues. The larger one has a null space, on which R is -1 whatever W is.
That adds a constant to SO, and keeps SRIP at 1 or above. `NORMS` measure R in other ways.

Everything here is differentiable by autograd, twice if wanted. It is computed in float32, or in float64 where a weight is
float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv2d


def paper_so(W: Tensor) -> Tensor:
    """Soft orthogonality (SO): the squared Frobenius norm of R."""
    I = torch.eye(len(W), dtype=W.dtype, device=W.device)  # noqa: E741
    R = W @ W.T - I
    return R.square().sum()


def paper_srip(W: Tensor, v: Tensor) -> Tensor:
    """Spectral restricted isometry property (SRIP): the spectral norm of R, estimated from a Gaussian vector v."""
    I = torch.eye(len(W), dtype=W.dtype, device=W.device)  # noqa: E741
    R = W @ W.T - I
    u = R @ v
    w = R @ u
    return w.norm() / u.norm()


def paper_ocnn(K: Tensor, stride: int = 1) -> Tensor:
    """Orthogonality of a convolution (OCNN, CVPR 2020), by all shifts of a kernel of k x k numbers a channel."""
    P = (K.shape[-1] - 1) // stride * stride
    Z = conv2d(K, K, stride=stride, padding=P)
    I = torch.zeros_like(Z)  # noqa: E741
    I[:, :, P // stride, P // stride] = torch.eye(len(K), device=K.device)
    return (Z - I).square().sum()


def soft_orthogonality(
    weights: Sequence[Tensor],
    *,
    groups: int | Sequence[int] = 1,
    batch_dims: int | Sequence[int] = 0,
    side: str = "small",
    diagonal: float = 1.0,
    off_diagonal: float = 1.0,
    squared: bool = True,
    norm: str = "fro",
    normalize: str | None = None,
    against: Sequence[Tensor] | None = None,
    reduction: str = "sum",
) -> Tensor:
    """SO: `diagonal * sum_i R_ii^2 + off_diagonal * sum_(i != j) R_ij^2`, or its square root if not `squared`.

    Or another of the `NORMS` of R. `normalize="rows"` scales the rows of W to length 1 first: R is then that of cosines.
    `side="both"` adds both sides. `reduction="entries"` adds the means over the entries of every R.

    `against` takes the norm of A B^T instead: A is a matrix of `weights`, B that of `against` at its place.
    """
    if against is not None:
        grams = cross_grams(weights, against, groups, batch_dims, normalize)
        return reduce([measure(G, norm) / (G.numel() if reduction == "entries" else 1) for G in grams], reduction)
    values = []
    for W in matrices(weights, groups, batch_dims):
        if normalize == "rows":
            W = unit_rows(W)
        value = W.new_zeros(())
        for each in ("rows", "cols") if side == "both" else (side,):
            R = residual(W, each)
            value = value + NORMS[norm](R, diagonal, off_diagonal)
        value = value if squared else square_root(value)
        values.append(value / R.numel() if reduction == "entries" else value)
    return reduce(values, reduction)


def fro(R: Tensor, diagonal: float, off_diagonal: float) -> Tensor:
    """The square of the Frobenius norm, with factors of the squares on and off the diagonal."""
    on = R.diagonal()
    off = R - torch.diag(on)
    return diagonal * on.square().sum() + off_diagonal * off.square().sum()


def l1(R: Tensor, diagonal: float, off_diagonal: float) -> Tensor:
    return (factors(R, diagonal, off_diagonal) * R.abs()).sum()


def l21(R: Tensor, diagonal: float, off_diagonal: float) -> Tensor:
    """The sum of the lengths of the rows."""
    return square_root((factors(R, diagonal, off_diagonal) * R.square()).sum(dim=1)).sum()


def largest(R: Tensor, diagonal: float, off_diagonal: float) -> Tensor:
    """The largest entry. Of equal ones the first of the lower triangle, row by row, gets the gradient."""
    entries = factors(R, diagonal, off_diagonal) * R.abs()
    lower = entries[torch.tril_indices(*R.shape, device=R.device).unbind()]
    return lower.max(dim=0).values if len(lower) else R.new_zeros(())


NORMS = {"fro": fro, "l1": l1, "l21": l21, "max": largest}


def cross_grams(
    weights: Sequence[Tensor],
    others: Sequence[Tensor],
    groups: int | Sequence[int],
    batch_dims: int | Sequence[int],
    normalize: str | None,
) -> list[Tensor]:
    """A B^T of every pair of matrices: the inner products of the rows of A and of B."""
    counts = [groups] * len(weights) if isinstance(groups, int) else list(groups)
    batches = [batch_dims] * len(weights) if isinstance(batch_dims, int) else list(batch_dims)
    Ws = matrices([*weights, *others], counts * 2, batches * 2)
    if normalize == "rows":
        Ws = [unit_rows(W) for W in Ws]
    return [A @ B.T for A, B in zip(Ws[: len(Ws) // 2], Ws[len(Ws) // 2 :], strict=True)]


def measure(G: Tensor, norm: str) -> Tensor:
    """A norm of a cross Gram, which has no diagonal. Of equal largest entries the first gets the gradient."""
    if norm == "fro":
        return G.square().sum()
    if norm == "l1":
        return G.abs().sum()
    if norm == "l21":
        return square_root(G.square().sum(dim=1)).sum()
    return G.abs().flatten().max(dim=0).values if G.numel() else G.sum()


def factors(R: Tensor, diagonal: float, off_diagonal: float) -> Tensor:
    """What each entry counts."""
    return torch.full(R.shape, off_diagonal, dtype=R.dtype, device=R.device).fill_diagonal_(diagonal)


def srip(
    weights: Sequence[Tensor],
    *,
    groups: int | Sequence[int] = 1,
    batch_dims: int | Sequence[int] = 0,
    side: str = "small",
    iterations: int = 2,
    start: Sequence[Tensor] | None = None,
    generator: torch.Generator | None = None,
    gradient: str = "through",
    squared: bool = False,
    reduction: str = "sum",
) -> Tensor:
    """SRIP: sigma = |x_m| / |x_(m-1)| with x_i = R x_(i-1) and m = `iterations`, or sigma^2 if `squared`.

    The start x_0 is a fresh Gaussian vector by default. The gradient is that of the whole iteration (`"through"`, the
    unrolled gradient), or holds the last vector fixed (`"envelope"`, the detached eigenvector).
    """
    Ws = matrices(weights, groups, batch_dims)
    if start is None:
        x0 = draw_start(Ws, side, generator)
    else:
        x0 = [x for vectors in start for x in vectors.to(Ws[0].dtype)]
    values = []
    for W, x in zip(Ws, x0, strict=True):
        x = iterate(W, x, side, iterations - 1)
        if gradient == "envelope":
            x = x.detach()  # the derivative of the largest eigenvalue holds its eigenvector fixed
        sigma = torch.linalg.vector_norm(apply_residual(W, x, side))
        values.append(sigma.square() if squared else sigma)
    return reduce(values, reduction)


def low_rank_soft_orthogonality(
    products: Sequence[tuple[Tensor, Tensor]],
    *,
    scale: float | Tensor | Sequence[float | Tensor] = 1.0,
    reduction: str = "sum",
) -> Tensor:
    """SO of each M = scale B A, without what the zero singular values count that every matrix of rank r has."""
    scales = [scale] * len(products) if isinstance(scale, (int, float, Tensor)) else scale
    values = []
    for (B, A), s in zip(products, scales, strict=True):
        B, A = matrices([B, A])
        M = (B * s) @ A
        values.append(soft_orthogonality([M]) - (min(M.shape) - len(A)))
    return reduce(values, reduction)


def convolution_orthogonality(
    weights: Sequence[Tensor],
    *,
    stride: Sequence[tuple[int, int]],
    padding: Sequence[tuple[int, int]],
    identity: Sequence[tuple[int, int]],
    groups: int | Sequence[int] = 1,
    squared: bool = True,
    reduction: str = "sum",
) -> Tensor:
    """||Conv(K, K) - I||_F^2, or its root if not `squared`; I is the identity at the place `identity`, else zero."""
    values = []
    for index, K in kernels(weights, groups):
        Z = conv2d(K, K, stride=stride[index], padding=padding[index])
        y, x = identity[index]
        I = torch.zeros_like(Z)  # noqa: E741
        I[:, :, y, x] = torch.eye(len(K), dtype=K.dtype, device=K.device)
        value = (Z - I).square().sum()
        values.append(value if squared else square_root(value))
    return reduce(values, reduction)


def kernels(weights: Sequence[Tensor], groups: int | Sequence[int] = 1) -> list[tuple[int, Tensor]]:
    """Every kernel `(out / groups, in / groups, height, width)`, with the place of its weight in the list."""
    counts = [groups] * len(weights) if isinstance(groups, int) else groups
    dtype = torch.float64 if any(weight.dtype is torch.float64 for weight in weights) else torch.float32
    result = []
    for index, (weight, count) in enumerate(zip(weights, counts, strict=True)):
        height, width = (1, 1, *weight.shape[2:])[-2:]
        shape = count, weight.shape[0] // count, weight.shape[1], height, width
        result += [(index, K) for K in weight.to(dtype).reshape(shape)]
    return result


def extreme_eigenvalues(W: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """The largest and the smallest eigenvalue of G = W W^T, of every `(n, k)` matrix of W, differentiable.

    With the vectors x and x' of `start`, `(..., n, 2)`: y = G x gives largest = |W^T y|^2 / |y|^2, its Rayleigh quotient.
    z = (G - largest I) x' gives smallest = |W^T z|^2 / |z|^2, and largest where z is zero; of a zero matrix both are 0.
    Both are float64, computed in float64: near orthogonality their difference has no digits in float32.
    """
    W, start = W.double(), start.detach().double()
    y, y2 = (W @ (W.mT @ start)).unbind(-1)
    largest = rayleigh_quotient(W, y, torch.zeros_like(y[..., 0]))
    z = y2 - largest[..., None] * start[..., 1]
    return largest, rayleigh_quotient(W, z, largest)


def rayleigh_quotient(W: Tensor, y: Tensor, of_zero: Tensor) -> Tensor:
    """y^T W W^T y / y^T y; `of_zero` for a zero vector."""
    squared = y.square().sum(-1)
    zero = squared == 0
    product = (W.mT @ y[..., None]).square().sum((-1, -2))
    return torch.where(zero, of_zero, product / torch.where(zero, 1, squared))


def matrices(
    weights: Sequence[Tensor], groups: int | Sequence[int] = 1, batch_dims: int | Sequence[int] = 0
) -> list[Tensor]:
    """Every matrix of every weight: a weight `(out, ...)` holds `groups` of `out / groups` rows, a batch of them more."""
    weights = list(weights)
    counts = [groups] * len(weights) if isinstance(groups, int) else groups
    batches = [batch_dims] * len(weights) if isinstance(batch_dims, int) else batch_dims
    dtype = torch.float64 if any(weight.dtype is torch.float64 for weight in weights) else torch.float32
    return [
        W
        for weight, count, dims in zip(weights, counts, batches, strict=True)
        for W in weight.to(dtype).reshape(
            weight.shape[:dims].numel() * count, weight.shape[dims] // count, weight.shape[dims + 1 :].numel()
        )
    ]


def rows_side(W: Tensor, side: str) -> bool:
    """Whether the Gram is W W^T (else W^T W); a tie between small and large goes to the rows."""
    small_is_rows = W.shape[0] <= W.shape[1]
    return {"rows": True, "cols": False, "small": small_is_rows, "large": not small_is_rows}[side]


def gram(W: Tensor, side: str) -> Tensor:
    return W @ W.T if rows_side(W, side) else W.T @ W


def residual(W: Tensor, side: str) -> Tensor:
    R = gram(W, side)
    return R - torch.eye(R.shape[0], dtype=R.dtype, device=R.device)


def unit_rows(W: Tensor) -> Tensor:
    """Rows of length 1; a zero row stays zero, with zero gradient.

    A row whose squares underflow counts as zero: its length has lost digits. One whose square overflows becomes NaN.
    """
    lengths = torch.linalg.vector_norm(W, dim=-1, keepdim=True)
    numbers = torch.finfo(W.dtype)
    zero = lengths < (numbers.tiny / numbers.eps) ** 0.5
    lengths = torch.where(zero, 1, torch.where(lengths.isinf(), torch.nan, lengths))
    return torch.where(zero, 0, W / lengths)


def apply_residual(W: Tensor, x: Tensor, side: str) -> Tensor:
    """R x without R: two products with W."""
    return W @ (W.T @ x) - x if rows_side(W, side) else W.T @ (W @ x) - x


def iterate(W: Tensor, x: Tensor, side: str, applications: int) -> Tensor:
    """R^applications x, normalized on the way: sigma does not depend on the scale of x."""
    for _ in range(applications):
        x = apply_residual(W, normalize(x), side)
    return normalize(x)


def draw_start(Ws: Sequence[Tensor], side: str, generator: torch.Generator | None = None) -> list[Tensor]:
    """A standard Gaussian vector for each matrix, all from one draw."""
    if not Ws:
        return []
    orders = [W.shape[0] if rows_side(W, side) else W.shape[1] for W in Ws]
    device = generator.device if generator is not None else Ws[0].device
    return list(
        torch.randn(sum(orders), dtype=Ws[0].dtype, device=device, generator=generator).to(Ws[0].device).split(orders)
    )


GOLDEN = -0x61C8864680B583EB  # SplitMix64's step: 2^64 over the golden ratio, as an int64


def start_vectors(keys: Tensor, step: Tensor) -> Tensor:
    """A standard Gaussian float32 for each int64 of `keys`, a function of it and of `step` alone.

    SplitMix64 begun at the key gives 64 bits; an odd number of 25 of them stands for a uniform one within (-1, 1).
    """
    odd = (splitmix64(keys + (step + 1) * GOLDEN) >> 39) | 1
    return (odd.float() / 2**24).erfinv() * 2**0.5


def splitmix64(z: Tensor) -> Tensor:
    """The output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) on int64, which wraps around."""
    z = (z ^ ((z >> 30) & (2**34 - 1))) * -0x40A7B892E31B1A47
    z = (z ^ ((z >> 27) & (2**37 - 1))) * -0x6B2FB644ECCEEE15
    return z ^ ((z >> 31) & (2**33 - 1))


def normalize(x: Tensor) -> Tensor:
    """x / |x|, and a zero vector unchanged: R = 0 has sigma 0 with zero gradient, not NaN."""
    norm = torch.linalg.vector_norm(x)
    return x / torch.where(norm == 0, 1, norm)


def square_root(value: Tensor) -> Tensor:
    """The root with zero gradient at zero, where autograd's is infinite."""
    positive = value != 0
    return torch.where(positive, torch.where(positive, value, 1).sqrt(), 0)


def reduce(values: Sequence[Tensor] | Tensor, reduction: str) -> Tensor:
    """The mean or, for other reductions, the sum of the values of all matrices, or (`none`) one value a matrix.

    No matrices add up to 0.
    """
    if not isinstance(values, Tensor):
        values = torch.stack(list(values)) if len(values) else torch.zeros(0)
    if reduction == "none":
        return values
    return values.mean() if reduction == "mean" and len(values) else values.sum()
