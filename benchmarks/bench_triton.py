"""The Triton kernels of ResNet-50 compiled for every architecture, without a GPU: instructions, registers, first use.

The table is what a first step compiles, in seconds of this machine's processor; later processes find it in triton's cache.
"""

import pytest
import torch

from .results import Results
from .weight_sets import weights_of

pytest.importorskip("triton", reason="triton is not installed")

from ortho_kernels.backends.triton.heuristics import ARCHITECTURES, TABLE


@pytest.mark.parametrize(
    "storage", [torch.float32, torch.bfloat16], ids=lambda dtype: str(dtype).removeprefix("torch.")
)
@pytest.mark.parametrize("architecture", ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120", "gfx942"])
def test_first_use(benchmark, request, monkeypatch, tmp_path, architecture, storage):
    from ortho_kernels.backends.triton.ahead_of_time import WeightShape, kernel_calls

    from .compile_kernels import compile_call

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    weights = tuple(WeightShape(tuple(weight.shape)) for weight in weights_of("resnet50"))
    calls = {call.identity: call for call in kernel_calls(TABLE[architecture], weights, storage)}
    rows = benchmark.pedantic(
        lambda: [compile_call(call, architecture) for call in calls.values()], rounds=1, iterations=1
    )
    name = f"triton {architecture:7}{str(storage).removeprefix('torch.'):9}"
    notes = request.config.stash[Results.key].notes
    for row in rows:
        products = ", ".join(f"{count} {kind}" for kind, count in row.products.items()) or "no matrix products"
        notes.append(
            f"{name}{row.kernel:18}{products:20}{row.counts['wide_copies']:4} wide copies"
            f"{row.registers:5} registers, {row.spilled} spilled, {row.shared_memory / 1024:4.0f} KiB shared,"
            f" {row.stages} stages, {row.seconds:.1f} s"
        )
    notes.append(f"{name}first use: {len(rows)} compilations, {sum(row.seconds for row in rows):.1f} s")
    assert all(row.spilled == 0 for row in rows)
    assert all(row.shared_memory <= ARCHITECTURES[architecture].shared_memory for row in rows)
