"""`python -m benchmarks.compile_kernels JOB...` compiles Triton kernels without a GPU and prints a JSON line for each.

A job is `architecture:dtype:precision:kernel,kernel`.
"""

import dataclasses
import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import triton

from ortho_kernels.backends.triton.ahead_of_time import WeightShape, kernel_calls, stand_in_for_gpu
from ortho_kernels.backends.triton.heuristics import ARCHITECTURES, TABLE
from ortho_kernels.backends.triton.launch import KernelCall

# The matrix instructions of each kind of hardware, as the assembly that triton writes calls them.
PRODUCTS = {
    "mma": r"\bmma\.sync\.",
    "wgmma": r"\bwgmma\.mma_async\.",
    "tcgen05": r"\btcgen05\.mma\.",
    "mfma": r"\bv_mfma_",
}
PATTERNS = {
    "wide_copies": r"\bcp\.async\.cg\.shared\.global[^;]*,\s*0x10\b|\bcp\.async\.bulk\.tensor",
    "wide_loads": r"\bld\.global[.\w:]*\.v4\.b32\b",
    "wide_stores": r"\bst\.global[.\w:]*\.v4\.b32\b",
    "product_waits": r"\bwgmma\.wait_group\b",
    "additions": r"\badd\.(?:rn\.)?f32(?:x2)?\b",
}

# A tiny matrix, and larger ones of every layout: by rows, by columns, and not aligned, which takes longest to compile.
SHAPES = [(9, 64), (600, 2048), (512, 256), (80, 147)]
ALL_LAYOUTS = ("sm_89", "sm_90", "sm_120")


@dataclass(frozen=True)
class Compiled:
    """One kernel for one architecture. Bytes of shared memory; registers and spilled bytes a thread; seconds.

    `products` and `counts`: how often each of `PRODUCTS` and `PATTERNS` stands in the assembly.
    """

    kernel: str
    architecture: str
    threads: int
    stages: int
    shared_memory: int
    registers: int
    spilled: int
    seconds: float
    products: dict[str, int]
    counts: dict[str, int]


def compile_call(call: KernelCall, architecture: str) -> Compiled:
    """Compiles a kernel; raises what triton raises where it can't be compiled."""
    stand_in_for_gpu(architecture)
    start = time.perf_counter()
    compiled = call.compile()
    seconds = time.perf_counter() - start
    assembly = compiled.asm["ptx" if "ptx" in compiled.asm else "amdgcn"]
    registers, spilled = _usage(compiled)
    counts = {name: len(re.findall(pattern, assembly)) for name, pattern in (PRODUCTS | PATTERNS).items()}
    return Compiled(
        kernel=call.name, architecture=architecture,
        threads=compiled.metadata.num_warps * ARCHITECTURES[architecture].warp, stages=compiled.metadata.num_stages,
        shared_memory=compiled.metadata.shared, registers=registers, spilled=spilled, seconds=seconds,
        products={name: counts[name] for name in PRODUCTS if counts[name]},
        counts={name: counts[name] for name in PATTERNS},
    )  # fmt: skip


def _usage(compiled) -> tuple[int, int]:
    """Registers of a thread and its bytes of local memory, of which a kernel without spills has none."""
    if "cubin" not in compiled.asm:
        text = compiled.asm["amdgcn"]
        return _number(r"\.vgpr_count:\s*(\d+)", text), _number(r"\.vgpr_spill_count:\s*(\d+)", text)
    with TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        binary.write_bytes(compiled.asm["cubin"])
        text = subprocess.run(
            [triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(binary)], capture_output=True, text=True, check=True
        ).stdout
    return _number(r"REG:(\d+)", text), _number(r"STACK:(\d+)", text) + _number(r"LOCAL:(\d+)", text)


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"no {pattern!r} in what the compiler says of its output: {text[:300]!r}")
    return int(found[1])


def main(jobs: list[str]) -> None:
    for job in jobs:
        architecture, storage, precision, kernels = job.split(":")
        shapes = SHAPES if architecture in ALL_LAYOUTS else SHAPES[:3]
        weights = tuple(map(WeightShape, shapes))
        calls = kernel_calls(TABLE[architecture], weights, getattr(torch, storage), int(precision))
        for call in {call.identity: call for call in calls}.values():
            if call.name in kernels.split(","):
                row = dataclasses.asdict(compile_call(call, architecture))
                block = getattr(call.keywords.get("META"), "BLOCK", None)
                row |= {"storage": storage, "precision": int(precision), "tile": block and block.value}
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
