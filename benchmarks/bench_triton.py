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
    from ortho_kernels.backends.triton.compilation import compilations, compile_for
    from ortho_kernels.backends.triton.matrices import matrices_of
    from ortho_kernels.backends.triton.plan import Plan

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    weights = [weight.detach().to(storage) for weight in weights_of("resnet50")]
    sides = [int(weight.shape[0] > weight[0].numel()) for weight in weights]
    plan = Plan(*matrices_of(weights, [1] * len(weights), sides), TABLE[architecture], multiprocessors=100)
    rows = benchmark.pedantic(
        lambda: [compile_for(architecture, each) for each in compilations(plan)], rounds=1, iterations=1
    )
    notes = request.config.stash[Results.key].notes
    for row in rows:
        products = ", ".join(f"{count} {name}" for name, count in row.products().items()) or "no matrix products"
        notes.append(
            f"triton {architecture:7}{row.storage:9}{row.kernel:18}{products:20}{row.wide_copies():4} wide copies"
            f"{row.registers:5} registers, {row.spilled} spilled, {row.shared_memory / 1024:4.0f} KiB shared,"
            f" {row.stages} stages, {row.seconds:.1f} s"
        )
    notes.append(
        f"triton {architecture} {rows[0].storage}, first use: {len(rows)} compilations, "
        f"{sum(row.seconds for row in rows):.1f} s"
    )
    assert all(row.spilled == 0 for row in rows)
    assert all(row.shared_memory <= ARCHITECTURES[architecture].shared_memory for row in rows)
