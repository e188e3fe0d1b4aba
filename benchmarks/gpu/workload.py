"""What profilers and sanitizers watch: `python -m benchmarks.gpu.workload shapes|once`. Nothing is timed or checked.

shapes  every kernel, layout, dtype and edge once, on small weights
once    one step of each penalty over a model, between the marks of CUDA's profiler, after steps that warm up
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks import model_shapes
from benchmarks.arguments import DTYPES as DTYPE_NAMES
from benchmarks.weight_sets import weights_of
from ortho_kernels import (
    ops,
    soft_orthogonality,
    soft_orthogonality_value_and_grad,
    srip,
    srip_value_and_grad,
    use_backend,
)

from .machine import reason_against_backend

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
PENALTIES = {"so": soft_orthogonality, "srip": srip}
MANY = 1000  # weights; an H200 runs 264 blocks of ours at once
# One entry, one row, one column; odd sizes; tiles that are not full; several tiles, parts and passes.
SHAPES = [(1, 1), (1, 9), (9, 1), (13, 37), (96, 300), (261, 517), (64, 3, 7, 7), (17, 64), (130, 2100), (1, 5000)]


def layouts(dtype: torch.dtype) -> list[Tensor]:
    """Weights of every shape and memory layout that the kernels tell apart."""

    def weight(*shape: int) -> Tensor:
        return (torch.randn(shape, device="cuda") / max(shape) ** 0.5).to(dtype)

    weights = [weight(*shape) for shape in SHAPES]
    weights += [
        weight(90, 70).t(),
        weight(300, 70),
        weight(60, 200)[::2, ::2],
        weight(40, 31)[:, 1:],  # rows that begin at odd addresses
        weight(24, 8, 3, 3).contiguous(memory_format=torch.channels_last),
        weight(90, 4, 3, 3).contiguous(memory_format=torch.channels_last),
        weight(24, 18, 3, 3)[:, ::2],
        weight(400).as_strided((20, 90), (3, 2)),
        weight(1, 12).expand(6, 12),
    ]
    return [each.detach().requires_grad_() for each in weights]


def many(dtype: torch.dtype) -> list[Tensor]:
    """More small weights than a GPU runs blocks at once: each block takes items of one layout after items of another."""
    chance = random.Random(0)
    weights = []
    for _ in range(MANY):
        W = torch.randn(chance.randint(1, 90), chance.randint(1, 90), device="cuda") / 8
        weights.append((W if chance.random() < 0.5 else W.t().contiguous().t()).to(dtype).requires_grad_())
    return weights


def shapes(backend: str) -> None:
    """Values and gradients of both penalties: by autograd, of either side, in groups, added in place."""
    with use_backend(backend):
        for dtype in DTYPES:
            if (reason := reason_against_backend(backend, "cuda", dtype)) is not None:
                print(f"{backend}, {dtype}: left out, {reason}", flush=True)
                continue
            weights = layouts(dtype)
            grouped = [weight for weight in weights if len(weight) % 2 == 0]
            for penalty in PENALTIES.values():
                torch.autograd.grad(penalty(weights), weights)
                torch.autograd.grad(penalty(grouped, groups=2), grouped)
                torch.autograd.grad(penalty(weights[:5], side="large"), weights[:5])
            torch.autograd.grad(srip(weights, gradient="envelope", iterations=3), weights)
            small = many(dtype)
            for penalty in PENALTIES.values():
                torch.autograd.grad(penalty(small), small)
            plain = [weight.detach() for weight in weights]
            targets = [torch.zeros(weight.shape, dtype=dtype, device="cuda") for weight in plain]
            for fused in (soft_orthogonality_value_and_grad, srip_value_and_grad):
                fused(plain, accumulate_into=targets)
            torch.cuda.synchronize()
            print(f"{backend}, {dtype}: done", flush=True)
        for precision in ("high", "medium"):  # kernels of their own for float32's backward
            torch.set_float32_matmul_precision(precision)
            weights = layouts(torch.float32)
            torch.autograd.grad(soft_orthogonality(weights), weights)
        ops.start_vectors(torch.arange(1001, device="cuda"), torch.zeros((), dtype=torch.int64, device="cuda"))
        torch.cuda.synchronize()


def once(backend: str, penalties: Sequence[str], model: str, dtype: torch.dtype) -> None:
    """What lies between the marks is one forward and backward of each penalty."""
    weights = weights_of(model, "cuda", dtype)
    with use_backend(backend):

        def steps() -> None:
            for name in penalties:
                torch.autograd.grad(PENALTIES[name](weights), weights)

        for _ in range(2):
            steps()
        torch.cuda.synchronize()
        torch.cuda.profiler.start()
        steps()
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.gpu.workload", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("shapes", "once"))
    parser.add_argument("--backend", choices=("cuda", "triton"), default="cuda")
    parser.add_argument("--penalty", nargs="+", choices=tuple(PENALTIES), default=list(PENALTIES))
    parser.add_argument("--model", choices=tuple(model_shapes.MODELS), default="resnet50")
    parser.add_argument("--dtype", choices=DTYPE_NAMES, default="float32")
    options = parser.parse_args(arguments)
    if (reason := reason_against_backend(options.backend, "cuda")) is not None:
        print(f"{options.backend} can't run here: {reason}", file=sys.stderr)
        return 1
    if options.what == "shapes":
        shapes(options.backend)
    else:
        once(options.backend, options.penalty, options.model, getattr(torch, options.dtype))
    return 0


if __name__ == "__main__":
    sys.exit(main())
