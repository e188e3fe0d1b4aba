"""Compiles the kernels for the architectures named on the command line and prints what came out, a JSON line each.

A process of its own: triton must not be in the interpreter's mode, and a compiler that gives up ends its process.
"""

import dataclasses
import json
import re
import sys

import torch

from ortho_kernels.backends.triton import heuristics
from ortho_kernels.backends.triton.compilation import compilations, compile_for
from ortho_kernels.backends.triton.matrices import matrices_of
from ortho_kernels.backends.triton.plan import Plan

# A tiny matrix, and larger ones of every layout: by rows, by columns, and not aligned, which takes longest to compile.
SHAPES = [((9, 64), 0), ((512, 256), 0), ((512, 256), 1), ((80, 147), 0)]
ALL_LAYOUTS = ("sm_90", "sm_120")


def plan_for(architecture, storage):
    shapes = SHAPES if architecture in ALL_LAYOUTS else SHAPES[:3]
    weights = [torch.empty(shape, dtype=storage) for shape, _ in shapes]
    matrices, gradients = matrices_of(weights, [1] * len(weights), [side for _, side in shapes])
    return Plan(matrices, gradients, heuristics.TABLE[architecture], multiprocessors=100)


def main(jobs):
    """Each job is `architecture:dtype:precision:kernel,kernel`."""
    for job in jobs:
        architecture, storage, precision, kernels = job.split(":")
        plan = plan_for(architecture, getattr(torch, storage))
        for compilation in compilations(plan, int(precision)):
            if compilation.kernel.fn.__name__ not in kernels.split(","):
                continue
            compiled = compile_for(architecture, compilation)
            row = {
                name: value
                for name, value in dataclasses.asdict(compiled).items()
                if name not in ("assembly", "constants")
            }
            row |= {
                "precision": int(precision), "products": compiled.products(), "wide_copies": compiled.wide_copies(),
                "additions": len(re.findall(r"\badd\.(?:rn\.)?f32(?:x2)?\b", compiled.assembly)),
                "tile": compilation.specialization.constants.get("BLOCK"),
            }  # fmt: skip
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
