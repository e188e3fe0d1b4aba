"""How the kernels are cut for each architecture: chosen here, never by trial on first use.

The figures that limit a choice, shared memory and registers, are known in advance, so the table is tested on any machine.
A file that `python -m ortho_kernels.tune` measured on a real card takes precedence over the table.

Pure data: nothing here needs triton or a GPU.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

WARP = {"cuda": 32, "hip": 64}


@dataclass(frozen=True)
class Capacity:
    """What a multiprocessor of an architecture has. Shared memory in bytes, for one program; registers of 32 bits."""

    target: str  # as triton calls it: cuda, hip
    shared_memory: int
    registers: int = 65536
    registers_per_thread: int = 255
    fast_products: str = "mma"  # the matrix instructions that triton reaches

    @property
    def warp(self) -> int:
        return WARP[self.target]

    def registers_with(self, warps: int, programs: int = 1) -> int:
        """The most that a thread has where so many programs of so many warps run at once, a multiple of 8."""
        return min(self.registers_per_thread, self.registers // (programs * warps * self.warp) // 8 * 8)


# CUDA C++ Programming Guide, technical specifications per compute capability; AMD CDNA 3 and 4 ISA guides.
ARCHITECTURES = {
    "sm_80": Capacity("cuda", 163 * 1024),
    "sm_86": Capacity("cuda", 99 * 1024),
    "sm_87": Capacity("cuda", 163 * 1024),
    "sm_89": Capacity("cuda", 99 * 1024),
    "sm_90": Capacity("cuda", 227 * 1024, fast_products="wgmma"),
    "sm_100": Capacity("cuda", 227 * 1024, fast_products="tcgen05"),
    "sm_103": Capacity("cuda", 227 * 1024, fast_products="tcgen05"),
    "sm_120": Capacity("cuda", 99 * 1024),
    "sm_121": Capacity("cuda", 99 * 1024),
    "gfx942": Capacity("hip", 64 * 1024, registers=131072, registers_per_thread=512, fast_products="mfma"),
    "gfx950": Capacity("hip", 160 * 1024, registers=131072, registers_per_thread=512, fast_products="mfma"),
}
PARTS_BYTES = {"tf32x3": 4, "bf16x8": 16}  # in shared memory, of a float32
LEAST_COLUMNS = 4  # of a pass: twice as many of 2 bytes are a copy of 16
LEAST_REGISTERS = 64  # that a thread of a pass has
INTERPRETER = "interpreter"  # triton's, on the CPU: for tests


@dataclass(frozen=True)
class Tile:
    """One program's share: `rows` x `columns` of the result, summed `depth` at a time.

    `programs` are to run on a multiprocessor at once: a thread has no more registers than they leave.
    """

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int
    programs: int = 1

    def shared_memory(self, element_size: int, parts: int) -> int:
        """Bytes: the operands of all stages; and the parts of one stage, so many bytes for each of its numbers."""
        stage = (self.rows + self.columns) * self.depth
        return stage * (element_size * self.stages + parts)

    def accumulators(self, warp: int) -> int:
        """Registers a thread holds sums in."""
        return self.rows * self.columns // (self.warps * warp)


@dataclass(frozen=True)
class Pass:
    """One program's share of a pass over a matrix: `rows` along the order at a time, `columns` of its depth.

    `programs` are to run on a multiprocessor at once: a thread has no more registers than they leave. Power iteration has
    other tiles beside this one (`plan.HELD_SHAPES`), for smaller orders.
    """

    rows: int
    columns: int
    warps: int
    programs: int = 2


@dataclass(frozen=True)
class Configuration:
    """The choices for one architecture. Tiles of a residual are square. Each is for weights of 4 and of 2 bytes."""

    architecture: str
    residual_float32: Tile
    residual_half: Tile
    product_float32: Tile  # at the highest precision
    product_tf32: Tile
    product_half: Tile
    passes: Pass
    update: Pass
    forward_precision: str
    product_precisions: tuple[str, str, str] = ("tf32x3", "tf32", "bf16")  # highest, high, medium

    def residual(self, storage: torch.dtype) -> Tile:
        return self.residual_float32 if storage is torch.float32 else self.residual_half

    def product_precision(self, storage: torch.dtype, precision: int) -> str:
        """How R W is multiplied. A float16 is a tf32 exactly, and R might overflow it."""
        if storage is torch.float32:
            return self.product_precisions[precision]
        return "bf16" if storage is torch.bfloat16 else self.product_precisions[1]

    @property
    def update_precision(self) -> str:
        """Of SRIP's gradient, whose few vectors fill no tile that bfloat16 parts would need."""
        return "tf32x3" if self.forward_precision == "bf16x8" else self.forward_precision

    def product(self, storage: torch.dtype, precision: int) -> Tile:
        chosen = self.product_precision(storage, precision)
        if chosen == "bf16":
            return self.product_half
        return self.product_tf32 if chosen == "tf32" else self.product_float32


# What passes hold, and how many run at once, is reasoned, not measured: 16 float64 a thread leave 128 registers enough for
# a tile that is on its way meanwhile, and the 32 KiB of two programs are what hides the latency of an H100's memory.
_DEFAULT = Configuration(
    architecture="",
    residual_float32=Tile(64, 64, 16, 4, 3),
    residual_half=Tile(128, 128, 32, 8, 3),
    product_float32=Tile(64, 64, 16, 4, 3),
    product_tf32=Tile(64, 128, 32, 8, 2),
    product_half=Tile(64, 128, 32, 8, 3),
    passes=Pass(1024, 4, 8, 2),
    update=Pass(32, 64, 4, 2),
    forward_precision="tf32x3",
)
_LARGE = replace(
    _DEFAULT,
    residual_float32=Tile(128, 128, 16, 8, 4),
    product_float32=Tile(64, 128, 32, 8, 3),
    product_tf32=Tile(64, 128, 32, 8, 3),
)
# Products of three bfloat16 parts are more exact than those of two tf32 parts. On an H100 six, by triton's bf16x6, took 15
# to 19 % less time (docs/gpu.csv). Eight as one (`kernels/parts.py`) take half the instructions, and one wait for six. That
# and small tiles, of which three programs run at once, are reasoned, not measured.
_HOPPER = replace(
    _LARGE,
    residual_float32=Tile(64, 64, 16, 4, 3, programs=3),
    forward_precision="bf16x8",
    product_float32=Tile(64, 64, 32, 4, 3, programs=3),
    product_precisions=("bf16x8", "tf32", "bf16"),
)
_CONSUMER_BLACKWELL = replace(_DEFAULT, residual_half=Tile(64, 64, 32, 4, 3))
_AMD = replace(
    _DEFAULT,
    residual_float32=Tile(64, 64, 32, 4, 2),
    residual_half=Tile(128, 128, 32, 4, 2),
    product_float32=Tile(64, 64, 32, 4, 2),
    product_tf32=Tile(64, 128, 32, 4, 2),
    product_half=Tile(64, 128, 32, 4, 2),
    passes=Pass(1024, 4, 4, 2),
    forward_precision="ieee",
    product_precisions=("ieee", "tf32", "bf16"),
)
TABLE = {
    "sm_80": _DEFAULT,
    "sm_86": _DEFAULT,
    "sm_87": _DEFAULT,
    "sm_89": _DEFAULT,
    "sm_90": _HOPPER,
    "sm_100": _LARGE,
    "sm_103": _LARGE,
    "sm_120": _CONSUMER_BLACKWELL,
    "sm_121": _CONSUMER_BLACKWELL,
    "gfx942": _AMD,
    "gfx950": replace(_AMD, product_precisions=("ieee", "ieee", "bf16")),  # CDNA 4 has no tf32
    INTERPRETER: replace(
        _DEFAULT,
        residual_float32=Tile(64, 64, 128, 4, 1),
        product_float32=Tile(64, 256, 64, 4, 1),
        passes=Pass(64, 256, 4),
        update=Pass(64, 128, 4),
        forward_precision="ieee",
        product_precisions=("ieee", "ieee", "bf16"),
    ),
}
TABLE = {architecture: replace(entry, architecture=architecture) for architecture, entry in TABLE.items()}

_VARIABLE = "ORTHO_KERNELS_TUNED"
_TUNABLE = {
    each.name: {"Tile": Tile, "Pass": Pass}[each.type]
    for each in fields(Configuration)
    if each.type in ("Tile", "Pass")
}


def tuned_path(architecture: str) -> Path:
    """Where a tuned table of an architecture lies; the environment variable ORTHO_KERNELS_TUNED names another folder."""
    folder = os.environ.get(_VARIABLE) or Path.home() / ".cache" / "ortho_kernels"
    return Path(folder) / f"triton_{architecture}.json"


@cache
def configuration(architecture: str) -> Configuration:
    """The tuned configuration of an architecture where there is one, else that of the table.

    Raises `KeyError` for an architecture that the table doesn't know, `ValueError` for a tuned file that doesn't fit.
    """
    base = TABLE[architecture]
    path = tuned_path(architecture)
    return tuned(base, path.read_text(), str(path)) if path.exists() else base


def tuned(base: Configuration, text: str, source: str) -> Configuration:
    """`base` with the entries of a JSON object in place of its own, such as {"passes": {"rows": 32, ...}}."""
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{source} is not JSON ({error}); delete it, or run python -m ortho_kernels.tune") from None
    unknown = sorted(set(entries) - set(_TUNABLE)) if isinstance(entries, dict) else ["not an object"]
    if unknown:
        raise ValueError(f"{source}: unknown entries {unknown}; expected some of {sorted(_TUNABLE)}")
    try:
        chosen: dict[str, Any] = {name: _TUNABLE[name](**entry) for name, entry in entries.items()}
    except TypeError as error:
        raise ValueError(f"{source}: {error}") from None
    result = replace(base, **chosen)
    problems = misfits(result)
    if problems:
        raise ValueError(f"{source}: {'; '.join(problems)}")
    return result


def as_json(configuration: Configuration) -> str:
    """What `tuned` reads."""
    return json.dumps({name: asdict(getattr(configuration, name)) for name in sorted(_TUNABLE)}, indent=2) + "\n"


def misfits(configuration: Configuration) -> list[str]:
    """What a configuration asks for that its architecture doesn't have; empty if it fits."""
    capacity = ARCHITECTURES.get(configuration.architecture)
    problems = []
    for name in sorted(_TUNABLE):
        entry = getattr(configuration, name)
        for each in fields(entry):
            number = getattr(entry, each.name)
            power_of_two = isinstance(number, int) and number > 0 and number & (number - 1) == 0
            if not (power_of_two or (each.name in ("stages", "programs") and number in range(1, 9))):
                problems.append(f"{name}.{each.name} must be a power of two, got {number!r}")
    if problems or capacity is None:
        return problems
    for name in sorted(_TUNABLE):
        entry = getattr(configuration, name)
        threads = entry.warps * capacity.warp
        if threads > 1024:
            problems.append(f"{name}: {threads} threads, of 1024 at most")
        if isinstance(entry, Pass):
            if capacity.registers_with(entry.warps, entry.programs) < LEAST_REGISTERS:
                problems.append(f"{name}: more threads a multiprocessor than have {LEAST_REGISTERS} registers each")
            if name == "passes" and entry.columns < LEAST_COLUMNS:
                problems.append(f"{name}: tiles of at least {LEAST_COLUMNS} columns, got {entry.columns}")
            # Power iteration holds a tile in float64, and most of its sums.
            held = 2 * entry.rows * entry.columns // threads if name == "passes" else 0
            if held > capacity.registers_with(entry.warps, entry.programs) // 2:
                problems.append(f"{name}: {held} registers of a tile a thread leave too few for the rest")
            continue
        if name.startswith("residual") and entry.rows != entry.columns:
            problems.append(f"{name}: tiles of a residual are square, got {entry.rows} x {entry.columns}")
        if min(entry.rows, entry.columns, entry.depth) < 16:
            problems.append(f"{name}: tensor cores want tiles of at least 16, got {entry}")
        if (needed := entry.shared_memory(*_operands(configuration, name))) > capacity.shared_memory:
            problems.append(f"{name}: {needed} bytes of shared memory, of {capacity.shared_memory}")
        # Sums are added outside of the tensor cores in a residual: the same number of registers once more.
        held = entry.accumulators(capacity.warp) * (2 if name.startswith("residual") else 1)
        if held > 5 * capacity.registers_with(entry.warps, entry.programs) // 8:
            problems.append(f"{name}: {held} registers of sums a thread leave too few for the rest")
    return problems


def _operands(configuration: Configuration, name: str) -> tuple[int, int]:
    """Bytes of a number of the operands in shared memory, and of its parts, where it is multiplied in parts."""
    if name == "residual_half":
        return 2, 0
    precision = configuration.forward_precision if name == "residual_float32" else configuration.product_precisions[0]
    return 4, PARTS_BYTES.get(precision, 0) if name in ("residual_float32", "product_float32") else 0
