"""What the penalties are, from float64 singular values and dense matrices: independent of the package."""

import torch


def as_matrices(weights, groups=1):
    counts = [groups] * len(weights) if isinstance(groups, int) else groups
    return [
        part.reshape(part.shape[0], -1)
        for weight, count in zip(weights, counts, strict=True)
        for part in weight.detach().double().chunk(count)
    ]


def residual(W, side="rows"):
    """W W^T - I or W^T W - I, with its graph; `side` as users name it or as operators count it."""
    wide = W.shape[0] <= W.shape[1]
    rows = {"rows": True, "cols": False, "small": wide, "large": not wide, 0: True, 1: False}[side]
    gram = W @ W.T if rows else W.T @ W
    return gram - torch.eye(len(gram), dtype=gram.dtype)


def so_from_spectrum(W):
    """sum (s^2 - 1)^2 over the singular values, which are those of the small side."""
    return ((torch.linalg.svdvals(W) ** 2 - 1) ** 2).sum()


def so_gradient(W):
    """4 (W W^T - I) W, whatever the side."""
    return 4 * (W @ W.T @ W - W)


def sigma(W, x, side="small", iterations=2):
    R = residual(W, side)
    for _ in range(iterations - 1):
        x = R @ x
    return (R @ x).norm() / x.norm()


def relative(given, truth):
    """The error relative in norm."""
    return ((given.double() - truth).norm() / truth.norm()).item()


def near_orthogonal(*shape, dtype=torch.float32, noise=1e-3):
    weight = torch.nn.init.orthogonal_(torch.empty(shape, dtype=torch.float64))
    return (weight + noise * torch.randn(shape, dtype=torch.float64)).to(dtype)
