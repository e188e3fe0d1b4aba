"""The kernels compiled ahead of time, for any architecture and without a GPU; and what came out."""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from . import specialization
from .heuristics import ARCHITECTURES
from .kernels.power_iteration import apply_all, begin_all, combine_all, finish_all, iterate
from .kernels.product import residual_products
from .kernels.rank_update import rank_updates
from .kernels.residual import residuals
from .plan import Plan
from .specialization import Specialization

# The matrix instructions of each kind of hardware, as the assembly that triton writes calls them.
PRODUCTS = {
    "mma": r"\bmma\.sync\.",
    "wgmma": r"\bwgmma\.mma_async\.",
    "tcgen05": r"\btcgen05\.mma\.",
    "mfma": r"\bv_mfma_",
}
WIDE_COPY = r"\bcp\.async\.cg\.shared\.global[^;]*,\s*0x10\b|\bcp\.async\.bulk\.tensor"


class Compilation(NamedTuple):
    """A kernel that a plan needs, and what it is compiled for."""

    kernel: Any  # a triton.jit function
    storage: torch.dtype
    specialization: Specialization

    @property
    def types(self) -> dict[str, str]:
        return specialization.argument_types(self.kernel.fn.__name__, self.storage)

    def into_cache(self) -> None:
        """Compiles for the target of triton's driver, as a launch would. What triton's cache holds is not compiled again."""
        arguments = [
            _NUMBERS[kind[1:]] if kind.startswith("*") else (1.0 if kind == "fp32" else 2)
            for name in self.kernel.arg_names
            if (kind := self.types.get(name)) is not None
        ]
        constants, options = self.specialization
        self.kernel.warmup(*arguments, grid=(1,), **constants, **options)


_NUMBERS = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16,
            "i64": torch.int64, "i32": torch.int32}  # fmt: skip


def compilations(plan: Plan, precision: int = 0, pairs: int = 2) -> list[Compilation]:
    """All kernels that both penalties and their backwards need; all weights get gradients. `precision` as in `ops.py`."""
    wanted = [True] * len(plan.gradients)
    result = []
    for storage, items in plan.residuals.items.items():
        result.append(Compilation(residuals, storage, specialization.residuals(plan, storage, items, True)))
    for storage, items in plan.products(wanted, precision).items():
        chosen = specialization.residual_products(plan, storage, items, precision)
        result.append(Compilation(residual_products, storage, chosen))
    for storage, items in plan.passes.passes.items():
        chosen = specialization.passes(plan, storage, items)
        if plan.configuration.cooperative:
            cooperative = {**chosen.options, "launch_cooperative_grid": True}
            result.append(Compilation(iterate, storage, Specialization(chosen.constants, cooperative)))
        else:
            none = Specialization({}, {})
            result += [
                Compilation(begin_all, storage, none),
                Compilation(apply_all, storage, chosen),
                Compilation(combine_all, storage, none),
                Compilation(finish_all, storage, none),
            ]
    for storage, items in plan.updates(wanted).items():
        result.append(Compilation(rank_updates, storage, specialization.rank_updates(plan, storage, items, pairs)))
    return result


@dataclass(frozen=True)
class Compiled:
    """One kernel for one architecture. Bytes of shared memory; registers and spilled bytes a thread; seconds."""

    kernel: str
    storage: str
    architecture: str
    constants: dict[str, Any]
    threads: int
    stages: int
    shared_memory: int
    registers: int
    spilled: int
    seconds: float
    assembly: str

    def count(self, pattern: str) -> int:
        return len(re.findall(pattern, self.assembly))

    def products(self) -> dict[str, int]:
        """How many matrix instructions of each kind there are."""
        return {name: count for name, pattern in PRODUCTS.items() if (count := self.count(pattern))}

    def wide_copies(self) -> int:
        """Copies of 16 bytes, or of whole tiles, to shared memory."""
        return self.count(WIDE_COPY)


def gpu_target(architecture: str) -> GPUTarget:
    limits = ARCHITECTURES[architecture]
    name = int(architecture.removeprefix("sm_")) if limits.target == "cuda" else architecture
    return GPUTarget(limits.target, name, limits.warp)


def compile_for(architecture: str, compilation: Compilation) -> Compiled:
    """Compiles a kernel; raises what triton raises where it can't be compiled."""
    kernel, types = compilation.kernel, compilation.types
    constants, options = compilation.specialization
    signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(kernel.arg_names)
        if types.get(name, "").startswith("*")
    }
    start = time.perf_counter()
    compiled = triton.compile(
        ASTSource(kernel, signature, constants, aligned), target=gpu_target(architecture), options=options
    )
    seconds = time.perf_counter() - start
    assembly = compiled.asm["ptx" if "ptx" in compiled.asm else "amdgcn"]
    registers, spilled = _usage(compiled)
    return Compiled(
        kernel=kernel.fn.__name__, storage=str(compilation.storage).removeprefix("torch."),
        architecture=architecture, constants=constants,
        threads=compiled.metadata.num_warps * ARCHITECTURES[architecture].warp, stages=compiled.metadata.num_stages,
        shared_memory=compiled.metadata.shared, registers=registers, spilled=spilled, seconds=seconds,
        assembly=assembly,
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
