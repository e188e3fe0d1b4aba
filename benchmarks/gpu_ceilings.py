"""What the card itself can do: `python benchmarks/gpu_ceilings.py`. Facts, a large copy, large matrix products.

The products are cuBLAS's, of random numbers: zeros run faster than data does. Each figure is the median of a few runs.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

if __package__ in (None, ""):  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.arguments import output_file
from benchmarks.json_lines import show
from ortho_kernels import __version__
from ortho_kernels.backends import cuda

COPIED_BYTES = 2 << 30
SIDE = 8192  # of the matrices that are multiplied
PRODUCTS = {
    "bf16": (torch.bfloat16, "highest"),
    "tf32": (torch.float32, "high"),
    "fp32": (torch.float32, "highest"),
}
QUERIES = ("driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "power.limit", "power.draw")


def facts() -> dict[str, str]:
    """Versions, the card and the build, as far as they can be known; never an error."""
    try:
        triton = version("triton")
    except PackageNotFoundError:
        triton = "not installed"
    known = {
        "card": "none that torch can use",
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "triton": triton,
        "python": platform.python_version(),
        "ortho_kernels": __version__,
        **cuda.build_facts(),
        **queried(),
    }
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        known |= {
            "card": card.name,
            "compute_capability": f"{card.major}.{card.minor}",
            "multiprocessors": str(card.multi_processor_count),
            "memory_gib": f"{card.total_memory / 2**30:.1f}",
            "l2_mib": f"{card.L2_cache_size / 2**20:.0f}",
        }
    return known


def queried() -> dict[str, str]:
    """What nvidia-smi says of the first card: the driver, clocks, power. Empty without it."""
    if shutil.which("nvidia-smi") is None:
        return {}
    command = ["nvidia-smi", f"--query-gpu={','.join(QUERIES)}", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    names = ("driver", *QUERIES[1:])
    return dict(zip(names, (value.strip() for value in done.stdout.splitlines()[0].split(",")), strict=False))


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The median of the GPU's seconds for `work`, after one run of it."""
    work()
    taken = []
    for _ in range(repeats):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        stop.record()
        stop.synchronize()
        taken.append(1e-3 * start.elapsed_time(stop))
    return median(taken)


def copied() -> float:
    """TB/s of a copy within the card's memory, bytes read and bytes written."""
    source = torch.empty(COPIED_BYTES // 4, device="cuda").normal_()
    target = torch.empty_like(source)
    return 2 * COPIED_BYTES / seconds(lambda: target.copy_(source), 8) / 1e12


def multiplied(dtype: torch.dtype, precision: str) -> float:
    """TFLOP/s of a square matrix product."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        x, y = (torch.randn(SIDE, SIDE, device="cuda", dtype=dtype) for _ in range(2))
        return 2 * SIDE**3 / seconds(lambda: x @ y, 6) / 1e12
    finally:
        torch.set_float32_matmul_precision(before)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gpu_ceilings.py", description=__doc__)
    parser.add_argument("--out", type=output_file, help="a file to which each finding is added as a line of JSON")
    options = parser.parse_args(arguments)

    def note(finding: dict) -> None:
        show(finding, options.out)

    note({"facts": facts()})
    if not torch.cuda.is_available():
        print("No GPU that torch can use is here: no ceiling was measured.", file=sys.stderr)
        return 1
    ceilings: dict[str, tuple[Callable[[], float], str]] = {"copy": (copied, "TB/s")}
    for name, (dtype, precision) in PRODUCTS.items():
        ceilings[f"{name} product"] = (lambda d=dtype, p=precision: multiplied(d, p)), "TFLOP/s"
    failed = 0
    for name, (measure, unit) in ceilings.items():
        try:
            note({"case": name, "value": round(measure(), 2), "unit": unit})
        except Exception as error:
            failed += 1
            note({"case": name, "error": f"{type(error).__name__}: {error}"})
        torch.cuda.empty_cache()
    note({"facts": {f"{name} under load": value for name, value in queried().items() if name.startswith("clocks.sm")}})
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
