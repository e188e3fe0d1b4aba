"""What the card itself can do: `python -m benchmarks.gpu.ceilings`. Facts, a large copy, large matrix products.

The products are cuBLAS's, of random numbers: zeros run faster than data does. Each figure is the median of a few runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from statistics import median

import torch

from benchmarks.arguments import output_file

from .json_lines import show
from .machine import NO_GPU, facts, queried
from .stopwatch import Stopwatch, describe

COPIED_BYTES = 2 << 30
SIDE = 8192  # of the matrices that are multiplied
REPEATS = 8
PRODUCTS = {
    "bf16": (torch.bfloat16, "highest"),
    "tf32": (torch.float32, "high"),
    "fp32": (torch.float32, "highest"),
}


def median_seconds(stopwatch: Stopwatch, step: Callable[[], object]) -> float:
    """Of a few runs on the GPU, after one that warms up."""
    step()
    return median(stopwatch.device_seconds(step) for _ in range(REPEATS))


def copy_rate(stopwatch: Stopwatch) -> float:
    """TB/s of a copy within the card's memory, bytes read and bytes written."""
    source = torch.empty(COPIED_BYTES // 4, device="cuda").normal_()
    target = torch.empty_like(source)
    return 2 * COPIED_BYTES / median_seconds(stopwatch, lambda: target.copy_(source)) / 1e12


def product_rate(stopwatch: Stopwatch, dtype: torch.dtype, precision: str) -> float:
    """TFLOP/s of a square matrix product."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        x, y = (torch.randn(SIDE, SIDE, device="cuda", dtype=dtype) for _ in range(2))
        return 2 * SIDE**3 / median_seconds(stopwatch, lambda: x @ y) / 1e12
    finally:
        torch.set_float32_matmul_precision(before)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.gpu.ceilings", description=__doc__)
    parser.add_argument("--out", type=output_file, help="a file to which each finding is added as a line of JSON")
    options = parser.parse_args(arguments)

    show({"facts": facts()}, options.out)
    if not torch.cuda.is_available():
        print(f"No ceiling was measured: {NO_GPU}.", file=sys.stderr)
        return 1
    stopwatch = Stopwatch()
    ceilings: dict[str, tuple[Callable[[], float], str]] = {"copy": (lambda: copy_rate(stopwatch), "TB/s")}
    for name, (dtype, precision) in PRODUCTS.items():
        ceilings[f"{name} product"] = (lambda d=dtype, p=precision: product_rate(stopwatch, d, p)), "TFLOP/s"
    failed = False
    for name, (measure, unit) in ceilings.items():
        try:
            show({"case": name, "value": round(measure(), 2), "unit": unit}, options.out)
        except Exception as error:
            failed = True
            show({"case": name, "error": describe(error)}, options.out)
        torch.cuda.empty_cache()
    clocks = {f"{name} under load": value for name, value in queried().items() if name.startswith("clocks.sm")}
    show({"facts": clocks}, options.out)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
