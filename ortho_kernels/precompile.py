"""`python -m ortho_kernels.precompile sm_90 --model resnet50`: compiles the Triton kernels for a GPU that need not be here.

They go into triton's cache (`~/.triton/cache`, or the folder that TRITON_CACHE_DIR names), which can be taken along.
Training on that GPU with either penalty then compiles no kernel, if triton, this package and the shapes are the same.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import torch

from .backends import triton
from .backends.triton import heuristics
from .backends.triton.ahead_of_time import Compilers, WeightShape, distinct, jobs_of

DTYPES = ("float32", "bfloat16", "float16")
PRECISIONS = ("highest", "high", "medium")  # of torch.set_float32_matmul_precision, as `ops.py` numbers them


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ortho_kernels.precompile", description=__doc__)
    parser.add_argument(
        "architecture", choices=tuple(heuristics.ARCHITECTURES), metavar="ARCHITECTURE", help="such as sm_90"
    )
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument("--model", help="the name of a model of torchvision or timm, whose weights these are")
    weights.add_argument("--shapes", nargs="+", type=shape_of, help="of weights, such as 64x3x7x7 1000x2048")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["highest"], help="of float32 products")
    parser.add_argument("--processes", type=int, help="that compile at once; by default one a core")
    options = parser.parse_args(arguments)
    if options.processes is not None and options.processes < 1:
        parser.error(f"--processes must be 1 or more, got {options.processes}")
    if (reason := triton.reason_against_triton()) is not None:
        print(f"Nothing was compiled: {reason}.", file=sys.stderr)
        return 1
    try:
        shapes = options.shapes or weights_of_model(options.model)
        configuration = heuristics.configuration(options.architecture)
    except (ImportError, ValueError) as error:
        print(f"Nothing was compiled: {error}", file=sys.stderr)
        return 1
    jobs = distinct(
        job
        for dtype in options.dtypes
        for precision in options.precisions
        for job in jobs_of(configuration, shapes, getattr(torch, dtype), PRECISIONS.index(precision))
    )
    began, failed = time.monotonic(), 0
    with Compilers(options.architecture, options.processes) as compilers:
        for count, (job, reason) in enumerate(compilers.fill_cache(jobs), 1):
            name = f"{job.kernel}, {str(job.storage).removeprefix('torch.')}"
            print(f"{count} of {len(jobs)}: {name}{f' FAILED: {reason}' if reason else ''}", flush=True)
            failed += reason is not None
    print(f"{len(jobs) - failed} kernels for {options.architecture} in {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


def shape_of(text: str) -> WeightShape:
    try:
        shape = tuple(int(part) for part in text.split("x"))
    except ValueError:
        shape = ()
    if len(shape) < 2 or min(shape) < 1 or max(shape) >= 2**31:
        raise argparse.ArgumentTypeError(
            f"expected two or more sizes from 1 to 2147483647, such as 64x3x7x7; got {text!r}"
        )
    return WeightShape(shape)


def weights_of_model(name: str) -> list[WeightShape]:
    """All that the penalty covers in a model of torchvision or timm.

    Raises `ImportError` where neither is installed, `ValueError` where none of them knows the name.
    """
    from .penalty import OrthogonalityPenalty

    covered = OrthogonalityPenalty(_build(name)).weights()
    return [WeightShape(tuple(weight.shape), groups) for _, weight, groups in covered]


def _build(name: str) -> torch.nn.Module:
    missing = []
    try:
        from torchvision import models

        if name in models.list_models(module=models):
            return models.get_model(name, weights=None)
    except ImportError:
        missing.append("torchvision")
    try:
        import timm

        if timm.is_model(name):
            return timm.create_model(name)
    except ImportError:
        missing.append("timm")
    if missing:
        raise ImportError(f"--model {name} needs {' or '.join(missing)}, not installed here; --shapes needs neither")
    raise ValueError(f"--model {name}: neither torchvision nor timm has it")


if __name__ == "__main__":
    sys.exit(main())
