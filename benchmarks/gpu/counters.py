"""Hardware counters of the kernels: `python -m benchmarks.gpu.counters --backend cuda`, by Nsight Compute's ncu.

One forward and backward of each penalty over a model. The whole table of counters is added to a CSV file; some of them
are findings, by kernel.
"""

from __future__ import annotations

import argparse
import csv
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.arguments import DTYPES, PENALTIES, output_file

from .json_lines import show

ROOT = Path(__file__).resolve().parents[2]
KERNELS = {
    "cuda": ("gram_residual", "spread_residuals", "residual_product", "power_iteration", "rank_update"),
    "triton": ("residuals", "spread_residuals", "residual_products", "apply_residuals", "combine_sums", "rank_updates"),
}
SECTIONS = (
    "SpeedOfLight", "MemoryWorkloadAnalysis", "ComputeWorkloadAnalysis", "SchedulerStats", "WarpStateStats",
    "Occupancy", "InstructionStats", "LaunchStats",
)  # fmt: skip
# Time; how busy issue slots and warps are; traffic. Asked for, since the sections hold not all of them on every card.
ASKED = (
    "gpu__time_duration.sum",
    "smsp__issue_active.avg.pct_of_peak_sustained_active",
    "smsp__inst_executed.sum",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "dram__bytes_read.sum",
    "dram__bytes_write.sum",
    "lts__t_bytes.sum",
)
# And what the sections hold on the launch and on how busy each unit is.
FOUND = re.compile(
    r"launch__registers_per_thread|launch__grid_size"
    r"|sm__pipe_\w+_cycles_active\.avg\.pct_of_peak_sustained_active|\w+__throughput\.avg\.pct_of_peak_sustained_elapsed"
)
# What ncu prints where it can't do its work, and what that means.
REFUSALS = {
    "ERR_NVGPUCTRPERM": "no permission to read the GPU's counters (ERR_NVGPUCTRPERM): run as root",
    "Failed to initialize the profiler": "ncu could not start on this machine: failed to initialize the profiler",
    "No kernels were profiled": "ncu saw no kernel",
}


def command(backend: str, penalties: Sequence[str], model: str, dtype: str) -> list[str]:
    """The call of ncu. The clocks stay as they are found, and L2 is emptied before each kernel, which is ncu's default."""
    return [
        "ncu", "--csv", "--page", "raw", "--clock-control", "none", "--profile-from-start", "off",
        *(word for section in SECTIONS for word in ("--section", section)),
        "--metrics", ",".join(ASKED), "--kernel-name", f"regex:{'|'.join(KERNELS[backend])}",
        sys.executable, "-m", "benchmarks.gpu.workload", "once",
        "--backend", backend, "--penalty", *penalties, "--model", model, "--dtype", dtype,
    ]  # fmt: skip


def findings(printed: str) -> Iterator[dict]:
    """The chosen counters of ncu's table, a kernel and counter each. The table's second row holds the units."""
    lines = printed.splitlines()
    begin = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if begin is None:
        return
    names, *rows = csv.reader(lines[begin:])
    units = dict(zip(names, rows[0], strict=False)) if rows else {}
    for row in rows[1:]:
        values = dict(zip(names, row, strict=False))
        for name in names:
            if (name in ASKED or FOUND.fullmatch(name)) and values.get(name):
                try:
                    value = float(values[name].replace(",", ""))
                except ValueError:
                    continue
                kernel = values["Kernel Name"]
                yield {"kernel": kernel, "case": f"{kernel} {name}", "value": value, "unit": units.get(name, "")}
        yield from _stalls(values)


def _stalls(values: dict[str, str]) -> Iterator[dict]:
    """The four things that an issued instruction waited for longest, in cycles."""
    prefix, suffix = "smsp__average_warps_issue_stalled_", "_per_issue_active.ratio"
    waits = {
        name.removeprefix(prefix).removesuffix(suffix): float(value.replace(",", ""))
        for name, value in values.items()
        if name.startswith(prefix) and name.endswith(suffix) and "not_issued" not in name and value
    }
    for name in sorted(waits, key=lambda name: -waits[name])[:4]:
        kernel = values["Kernel Name"]
        yield {"kernel": kernel, "case": f"{kernel} stall {name}", "value": waits[name], "unit": "cycles"}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.gpu.counters", description=__doc__)
    parser.add_argument("--backend", choices=tuple(KERNELS), default="cuda")
    parser.add_argument("--penalty", nargs="+", choices=PENALTIES, default=list(PENALTIES))
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--table", type=output_file, default="ncu.csv", help="the file that ncu's table is added to")
    parser.add_argument("--out", type=output_file, help="a file to which each finding is added as a line of JSON")
    options = parser.parse_args(arguments)
    if shutil.which("ncu") is None:
        print("ncu is not on the PATH: it comes with the CUDA toolkit (Nsight Compute).", file=sys.stderr)
        return 1
    done = subprocess.run(
        command(options.backend, options.penalty, options.model, options.dtype),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=ROOT,
    )  # fmt: skip
    with options.table.open("a") as table:
        table.write(done.stdout)
    found = list(findings(done.stdout))
    for finding in found:
        show(finding, options.out)
    if found:
        return 0
    refusal = next((words for mark, words in REFUSALS.items() if mark in done.stdout), None)
    print(done.stdout[-3000:] if refusal is None else refusal, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
