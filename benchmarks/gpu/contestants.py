"""What the GPU kernels are measured against. Each contestant is a pair of steps: the forward alone, and with its backward.

published, eager, compiled  as in `rivals.py`
graph     `eager`, captured once in a CUDA graph and replayed: no host cost, the same kernels; likewise all with `-graph`
products  for each layer the matrix products alone, by cuBLAS: what no implementation by one library call a layer can beat
bucketed, grouped, quack, emerging  as in `batched.py`
cuda, triton  this package, by backend
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.rivals import Penalty, eager_srip, rival
from ortho_kernels import use_backend

from . import batched
from .batched import wide
from .machine import reason_against_backend

# Those that compile for long come last, so that little time is lost to them. Captured ones follow what they capture.
NAMES = (
    "cuda", "cuda-graph", "products", "products-graph", "bucketed", "bucketed-graph", "grouped", "grouped-graph",
    "eager", "graph", "published", "triton", "triton-graph", "quack", "emerging", "compiled",
)  # fmt: skip
ON_REQUEST = ("emerging", "compiled")  # minutes of tuning or compilation
OURS = ("cuda", "cuda-graph", "triton", "triton-graph")
CAPTURED = {"graph": "eager"} | {name: name.removesuffix("-graph") for name in NAMES if name.endswith("-graph")}
# Libraries of matrix products: what they multiply, and so which penalty they serve.
MULTIPLIED = {"grouped": (torch.bfloat16,), "quack": (torch.bfloat16, torch.float16), "emerging": (torch.bfloat16,)}


class Steps(NamedTuple):
    """A contestant over one set of weights. `both` returns the value (None for `products`) and a tensor a weight."""

    forward: Callable[[], object]
    both: Callable[[], tuple[Tensor | None, Sequence[Tensor]]]


def reason_against(name: str, penalty: str, dtype: torch.dtype, device_type: str = "cuda") -> str | None:
    """Why a contestant can't compute this penalty of weights of this dtype, or None if it can be tried."""
    name = CAPTURED.get(name, name)
    if name in OURS:
        return reason_against_backend(name, device_type)
    if name in MULTIPLIED and penalty != "so":
        return "it multiplies matrices by matrices, so it serves soft orthogonality alone"
    if name in MULTIPLIED and dtype not in MULTIPLIED[name]:
        accepted = " or ".join(str(each).removeprefix("torch.") for each in MULTIPLIED[name])
        return f"it multiplies {accepted}, not {str(dtype).removeprefix('torch.')}"
    return None


def steps(name: str, penalty: str, weights: Sequence[Tensor]) -> Steps:
    """The contestant's steps over these weights. Compiles and captures first; raises what stands in the way of that."""
    if name in CAPTURED:
        return Steps(*map(captured, steps(CAPTURED[name], penalty, weights)))
    if name == "products":
        return _products_so(weights) if penalty == "so" else _products_srip(weights)
    compute = _penalty(name, penalty)

    def both() -> tuple[Tensor, Sequence[Tensor]]:
        value = compute(weights)
        return value.detach(), torch.autograd.grad(value, weights)

    made = Steps(lambda: compute(weights), both)
    return Steps(*(partial(_on_backend, name, step) for step in made)) if name in OURS else made


def _penalty(name: str, penalty: str) -> Penalty:
    if name == "bucketed":
        return batched.bucketed_so if penalty == "so" else partial(eager_srip, sigmas=batched.bucketed_sigmas)
    if name == "grouped":
        return batched.grouped_so
    if name in ("quack", "emerging"):
        return batched.quack_so() if name == "quack" else batched.emerging_so()
    return rival("ours" if name in OURS else name, penalty)


def _on_backend(name: str, step: Callable) -> object:
    with use_backend(name):
        return step()


def captured(step: Callable) -> Callable:
    """The step in a CUDA graph: a function that replays it and returns the results that it has then written.

    A graph keeps no tensor alive that it reads. The function does, by the step.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = step()

    return partial(_replay, graph, results, step)


def _replay(graph: torch.cuda.CUDAGraph, results: object, _step: Callable) -> object:
    graph.replay()
    return results


def _products_so(weights: Sequence[Tensor]) -> Steps:
    """W W^T, and that times W."""
    matrices = [wide(weight.detach()) for weight in weights]

    def grams() -> list[Tensor]:
        return [W @ W.t() for W in matrices]

    return Steps(grams, lambda: (None, [R @ W for R, W in zip(grams(), matrices, strict=True)]))


def _products_srip(weights: Sequence[Tensor]) -> Steps:
    """Twice W (W^T x), and the update of rank four that is the exact gradient."""
    matrices = [wide(weight.detach()) for weight in weights]
    vectors = [torch.randn(len(W), dtype=W.dtype, device=W.device) for W in matrices]
    left = [torch.randn(len(W), 4, dtype=W.dtype, device=W.device) for W in matrices]
    right = [torch.randn(4, W.shape[1], dtype=W.dtype, device=W.device) for W in matrices]

    def iterate() -> None:
        for W, x in zip(matrices, vectors, strict=True):
            for _ in range(2):
                x = W @ (W.t() @ x)

    def both() -> tuple[None, list[Tensor]]:
        iterate()
        return None, [p @ x for p, x in zip(left, right, strict=True)]

    return Steps(iterate, both)
