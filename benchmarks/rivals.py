"""What the kernels are measured against. Each rival is one function: weights in, differentiable scalar out.

published  as the released code has it: the columns-side Gram layer by layer, the identity, the norm, and autograd through
           the dense power iteration
eager      the best plain torch: the smaller Gram, no identity matrix, and SRIP without R
compiled   torch.compile of eager
ours       this package
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import normalize

import ortho_kernels
from ortho_kernels import reference

Penalty = Callable[[Sequence[Tensor]], Tensor]
RIVALS = ("published", "eager", "compiled", "ours")


def published_so(weights: Sequence[Tensor]) -> Tensor:
    total: Tensor | None = None
    for weight in weights:
        W = weight.flatten(1)
        value = torch.norm(W.t() @ W - torch.eye(W.shape[1], dtype=W.dtype, device=W.device)) ** 2
        total = value if total is None else total + value
    assert total is not None
    return total


def published_srip(weights: Sequence[Tensor]) -> Tensor:
    total: Tensor | None = None
    for weight in weights:
        W = weight.flatten(1)
        R = W.t() @ W - torch.eye(W.shape[1], dtype=W.dtype, device=W.device)
        v = normalize(R.t() @ normalize(torch.randn(len(R), device=R.device).to(R.dtype), dim=0), dim=0)
        w = R @ v
        value = torch.dot(normalize(w, dim=0), w) ** 2
        total = value if total is None else total + value
    assert total is not None
    return total


def eager_so(weights: Sequence[Tensor]) -> Tensor:
    values = []
    for weight in weights:
        W = weight.flatten(1)
        R = W @ W.t() if W.shape[0] <= W.shape[1] else W.t() @ W
        R.diagonal().sub_(1)
        values.append(R.square().sum())
    return torch.stack(values).sum()


def eager_srip(weights: Sequence[Tensor], sigmas: Callable[..., Tensor] | None = None) -> Tensor:
    orders = [min(len(weight), weight[0].numel()) for weight in weights]
    start = torch.randn(sum(orders), device=weights[0].device).to(weights[0].dtype)  # in float32, as `truth` draws it
    return (sigmas or eager_sigmas)(weights, start.split(orders))


def eager_sigmas(weights: Sequence[Tensor], start: Sequence[Tensor]) -> Tensor:
    values = []
    for weight, v in zip(weights, start, strict=True):
        W = weight.flatten(1)
        W = W if W.shape[0] <= W.shape[1] else W.t()
        u = torch.addmv(v, W, W.t() @ v, beta=-1)
        w = torch.addmv(u, W, W.t() @ u, beta=-1)
        values.append(torch.linalg.vector_norm(w) / torch.linalg.vector_norm(u))
    return torch.stack(values).sum()


_PENALTIES: dict[tuple[str, str], Penalty] = {
    ("published", "so"): published_so,
    ("published", "srip"): published_srip,
    ("eager", "so"): eager_so,
    ("eager", "srip"): eager_srip,
    ("ours", "so"): ortho_kernels.soft_orthogonality,
    ("ours", "srip"): ortho_kernels.srip,
}


def rival(name: str, penalty: str) -> Penalty:
    if name == "compiled":
        torch._dynamo.reset()  # each model has shapes of its own
        plain = eager_so if penalty == "so" else eager_sigmas
        compiled = torch.compile(plain, dynamic=False, fullgraph=True)
        return compiled if penalty == "so" else partial(eager_srip, sigmas=compiled)
    return _PENALTIES[name, penalty]


def truth(name: str, penalty: str, weights: Sequence[Tensor]) -> Penalty:
    """The float64 definition of what this rival computes, given the random vectors that it is about to draw."""
    side = "cols" if name == "published" else "small"
    if penalty == "so":
        return partial(reference.soft_orthogonality, side=side)
    orders = [len(W) if reference.rows_side(W, side) else W.shape[1] for W in reference.matrices(weights)]
    device = weights[0].device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        if name == "published":
            start = [torch.randn(n, device=device) for n in orders]
        else:
            start = list(torch.randn(sum(orders), device=device).split(orders))
    return partial(reference.srip, side=side, squared=name == "published", start=[x[None] for x in start])
