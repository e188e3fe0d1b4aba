"""What nvcc and ptxas make of the CUDA kernels."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

KERNELS = Path(__file__).parents[2] / "csrc" / "ortho" / "cuda"


@dataclass
class Kernel:
    """What the assembler says of one kernel on one architecture."""

    name: str
    registers: int
    shared_bytes: int
    stack_bytes: int
    spilled_bytes: int

    @property
    def threads_and_blocks(self):
        planner = pytest.importorskip("ortho_kernels._introspect").cuda
        if re.search(r"gram_residual|residual_product", self.name):
            return planner.tile_threads, planner.tile_blocks
        if "spread_residuals" in self.name:
            return planner.tile_threads, planner.spread_blocks
        return planner.pass_threads, planner.pass_blocks


def run(*command):
    done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def parsed(report):
    pattern = (
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
        r".*?Used (\d+) registers([^\n]*)"
    )
    for name, stack, stores, loads, registers, rest in re.findall(pattern, report, re.DOTALL):
        shared = re.search(r"(\d+) bytes smem", rest)
        yield Kernel(name, int(registers), int(shared[1]) if shared else 0, int(stack), int(stores) + int(loads))
