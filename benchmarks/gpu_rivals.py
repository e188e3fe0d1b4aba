"""What the GPU kernels are measured against. A contestant is a step: one forward and backward, ready to be called again.

published, eager, compiled  as in `rivals.py`
graph     `eager`, captured once in a CUDA graph and replayed: no host cost, the same kernels
products  for each layer the matrix products alone, by cuBLAS: what no implementation by one library call a layer can beat
cuda, triton  this package, by backend
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ortho_kernels import use_backend

from .rivals import rival

Step = Callable[[], object]
RIVALS = ("published", "eager", "compiled", "graph", "products")
OURS = ("cuda", "triton")


def step(name: str, penalty: str, weights: Sequence[Tensor]) -> Step:
    """The contestant's step over these weights; it may compile or capture first."""
    if name == "products":
        return _products_so(weights) if penalty == "so" else _products_srip(weights)
    compute = rival({"graph": "eager", "cuda": "ours", "triton": "ours"}.get(name, name), penalty)

    def run() -> object:
        return torch.autograd.grad(compute(weights), weights)

    if name in OURS:

        def run_on_backend() -> object:
            with use_backend(name):
                return run()

        return run_on_backend
    return _captured(run) if name == "graph" else run


def _captured(run: Step) -> Step:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def _wide(weights: Sequence[Tensor]) -> list[Tensor]:
    """Each weight as a matrix of its smaller side in rows."""
    matrices = [weight.detach().flatten(1) for weight in weights]
    return [W if W.shape[0] <= W.shape[1] else W.t() for W in matrices]


def _products_so(weights: Sequence[Tensor]) -> Step:
    """W W^T, and that times W."""
    matrices = _wide(weights)

    def run() -> list[Tensor]:
        grams = [W @ W.t() for W in matrices]
        return [R @ W for R, W in zip(grams, matrices, strict=True)]

    return run


def _products_srip(weights: Sequence[Tensor]) -> Step:
    """Twice W (W^T x), and the update of rank four that is the exact gradient."""
    matrices = _wide(weights)
    vectors = [torch.randn(len(W), dtype=W.dtype, device=W.device) for W in matrices]
    left = [torch.randn(len(W), 4, dtype=W.dtype, device=W.device) for W in matrices]
    right = [torch.randn(4, W.shape[1], dtype=W.dtype, device=W.device) for W in matrices]

    def run() -> list[Tensor]:
        for W, x in zip(matrices, vectors, strict=True):
            for _ in range(2):
                x = W @ (W.t() @ x)
        return [p @ x for p, x in zip(left, right, strict=True)]

    return run
