"""The kernels compiled ahead of time, without a GPU: the right instructions, wide copies, no spills, within the capacity.

`benchmarks/bench_triton.py` compiles every kernel for every architecture and prints the table; here is a choice of them.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")

from ortho_kernels.backends.triton.heuristics import ARCHITECTURES, TABLE

ROOT = Path(__file__).parents[2]
# architecture:dtype:precision:kernels, those that take longest first
FEW = (
    "sm_90:float32:0:residuals,residual_products,apply_residuals",
    "sm_80:float32:0:residuals,apply_residuals,combine_sums",
    "gfx942:bfloat16:0:residuals,residual_products",
    "sm_86:bfloat16:0:residual_products,rank_updates",
)
OTHERS = (
    "sm_120:float32:0:residuals,residual_products",
    "sm_100:float32:1:residuals,residual_products",
    "sm_100:bfloat16:0:residuals",
    "sm_120:bfloat16:0:residuals",
    "sm_89:bfloat16:0:residuals",
    "sm_89:float32:0:residual_products",
)


@pytest.fixture(scope="module", params=[FEW, pytest.param(OTHERS, marks=pytest.mark.slow)], ids=["few", "others"])
def compiled(request, tmp_path_factory):
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("cache"))}
    environment.pop("TRITON_INTERPRET", None)

    def run(job):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.compile_kernels", job],
            env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, f"{job}\n{done.stderr[-4000:]}"
        return [json.loads(line) for line in done.stdout.splitlines()]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = [row for rows in pool.map(run, request.param) for row in rows]
    assert len(rows) == sum(len(job.split(":")[3].split(",")) for job in request.param)
    return rows


def test_no_spills_and_within_the_limits(compiled):
    for row in compiled:
        capacity = ARCHITECTURES[row["architecture"]]
        assert row["spilled"] == 0, row
        assert row["registers"] <= capacity.registers_per_thread, row
        assert row["registers"] * row["threads"] <= capacity.registers, row
        assert row["shared_memory"] <= capacity.shared_memory, row


def test_products_are_made_by_the_fastest_instructions(compiled):
    for row in compiled:
        if row["kernel"] in ("residuals", "residual_products"):
            assert row["products"].get(ARCHITECTURES[row["architecture"]].fast_products), row


def test_products_of_parts_are_waited_for_once_a_block(compiled):
    """In each of the three loops, one a layout."""
    for row in compiled:
        if row["architecture"] == "sm_90" and row["storage"] == "float32" and row["products"]:
            assert row["counts"]["product_waits"] == 3, row


def test_aligned_matrices_are_copied_16_bytes_at_a_time(compiled):
    for row in compiled:
        if row["kernel"] == "residuals" and row["architecture"].startswith("sm_"):
            assert row["counts"]["wide_copies"], row


def test_aligned_gradients_are_written_16_bytes_at_a_time(compiled):
    for row in compiled:
        if row["kernel"] in ("residual_products", "rank_updates") and row["architecture"].startswith("sm_"):
            assert row["counts"]["wide_stores"], row


def test_sums_are_added_outside_of_the_tensor_cores(compiled):
    """At least one addition for each sum that a thread holds: the compiler has not fused them into the product."""
    for row in compiled:
        if row["kernel"] == "residuals" and row["architecture"].startswith("sm_"):
            packed = 2 if row["architecture"] == "sm_100" else 1  # two in one instruction
            assert row["counts"]["additions"] >= row["tile"] ** 2 // row["threads"] // packed, row


def test_passes_read_16_bytes_at_a_time_and_as_many_run_at_once_as_are_meant_to(compiled):
    for row in compiled:
        if row["kernel"] == "apply_residuals":
            capacity, passes = ARCHITECTURES[row["architecture"]], TABLE[row["architecture"]].passes
            assert row["registers"] * row["threads"] * passes.programs <= capacity.registers, row
            assert row["shared_memory"] * passes.programs <= capacity.shared_memory, row
            assert row["counts"]["wide_loads"], row
