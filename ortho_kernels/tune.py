"""`python -m ortho_kernels.tune`: measures configurations of the Triton kernels on this machine's GPU and keeps the fastest.

The file it writes takes the place of the built-in table for this architecture, for this user
(`~/.cache/ortho_kernels`, or the folder that the environment variable ORTHO_KERNELS_TUNED names).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from .backends import triton
from .backends.triton import heuristics
from .backends.triton.heuristics import Configuration, Pass, Tile

# What a model's weights look like: those of a ResNet-50's stages and of a ViT-B's block.
SHAPES = [
    (64, 64, 1, 1), (64, 64, 3, 3), (256, 64, 1, 1), (128, 128, 3, 3), (512, 128, 1, 1), (256, 256, 3, 3),
    (1024, 256, 1, 1), (512, 512, 3, 3), (2048, 512, 1, 1), (2304, 768), (768, 768), (3072, 768), (768, 3072),
]  # fmt: skip
_SIDES, _DEPTHS, _WARPS, _STAGES = (64, 128), (16, 32, 64), (4, 8), (2, 3, 4)


def candidates(base: Configuration, entry: str) -> Iterator[Configuration]:
    """`base` first, then every other choice for one of its entries that fits the card."""
    yield base
    if isinstance(getattr(base, entry), Pass):
        choices: list[Tile | Pass] = [
            Pass(rows, columns, warps, programs)
            for rows in (16, 32)
            for columns in (64, 128)
            for warps in _WARPS
            for programs in (1, 2, 3)
        ]
    else:
        choices = [
            Tile(rows, columns, depth, warps, stages)
            for rows in _SIDES
            for columns in _SIDES
            for depth in _DEPTHS
            for warps in _WARPS
            for stages in _STAGES
        ]
    for choice in choices:
        candidate = replace(base, **{entry: choice})  # type: ignore[arg-type]
        if candidate != base and not heuristics.misfits(candidate):
            yield candidate


def fastest(base: Configuration, entry: str, seconds: Callable[[Configuration], float | None]) -> Configuration:
    """The candidate that takes the fewest seconds; None says that one can't run."""
    timed = [(taken, candidate) for candidate in candidates(base, entry) if (taken := seconds(candidate)) is not None]
    if not timed:
        raise RuntimeError(f"no configuration of {entry} could run on {base.architecture}")
    return min(timed, key=lambda pair: pair[0])[1]


def write(configuration: Configuration) -> Path:
    """Writes the tuned file whole, or not at all."""
    path = heuristics.tuned_path(configuration.architecture)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_text(heuristics.as_json(configuration))
    unfinished.replace(path)
    return path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ortho_kernels.tune", description=__doc__)
    parser.add_argument("--repeats", type=int, default=20, help="launches timed for each configuration")
    options = parser.parse_args(arguments)
    reason = triton.reason_against(torch.float32)
    if reason is not None:
        print(f"Nothing to tune: the Triton kernels can't serve here, because {reason}.", file=sys.stderr)
        return 1
    best = heuristics.TABLE[triton.architecture()]
    for entry, (storage, precision, step) in _STEPS.items():
        best = fastest(best, entry, lambda candidate: _measure(candidate, storage, precision, step, options.repeats))  # noqa: B023
        print(f"{entry:18} {getattr(best, entry)}", flush=True)
    print(f"Written to {write(best)}")
    return 0


# Each entry, with the dtype, the precision and the operators in which it shows.
_STEPS = {
    "residual_float32": (torch.float32, 0, "so"),
    "residual_half": (torch.bfloat16, 0, "so"),
    "product_float32": (torch.float32, 0, "so_backward"),
    "product_tf32": (torch.float32, 1, "so_backward"),
    "product_half": (torch.bfloat16, 0, "so_backward"),
    "passes": (torch.float32, 0, "srip"),
    "update": (torch.float32, 0, "srip_backward"),
}


def _measure(candidate: Configuration, storage: torch.dtype, precision: int, step: str, repeats: int) -> float | None:
    """The median seconds of one launch; None where the card has not the resources after all."""
    from triton.runtime.errors import OutOfResources

    from .backends.triton import operators, tables

    weights = [torch.randn(shape, dtype=storage, device="cuda") / 30 for shape in SHAPES]
    groups = [1] * len(weights)
    sides = [int(weight.shape[0] > weight[0].numel()) for weight in weights]
    ones = torch.ones(len(weights), device="cuda")
    with tables.configured(candidate):
        try:
            _, residuals = operators.soft_orthogonality(weights, groups, sides, 1.0, 1.0, True)
            order = tables.tables_for(weights, groups, sides).plan.total_order
            start = torch.randn(order, device="cuda")
            launches: dict[str, Callable[[], object]] = {
                "so": lambda: operators.soft_orthogonality(weights, groups, sides, 1.0, 1.0, True),
                "so_backward": lambda: operators.soft_orthogonality_backward(
                    ones, weights, groups, sides, residuals, precision, groups
                ),
                "srip": lambda: operators.srip(weights, groups, sides, start, 2, True, True),
            }
            if step == "srip_backward":
                _, vectors = operators.srip(weights, groups, sides, start, 2, True, True)
                launches[step] = lambda: operators.srip_backward(ones, weights, groups, sides, vectors, 2, groups)
            launches[step]()
            torch.cuda.synchronize()
        except OutOfResources:
            return None
        taken = []
        for _ in range(repeats):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            launches[step]()
            end.record()
            end.synchronize()
            taken.append(begin.elapsed_time(end) / 1e3)
    return median(taken)


if __name__ == "__main__":
    sys.exit(main())
