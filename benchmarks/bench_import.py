"""What `import ortho_kernels` adds to `import torch`, in fresh interpreters."""

import statistics
import subprocess
import sys

from .results import Results

CODE = "import time, torch; start = time.perf_counter(); import ortho_kernels; print(time.perf_counter() - start)"


def test_import(benchmark, request):
    def added() -> float:
        return float(subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout)

    added()  # byte-compiles
    samples = [added() for _ in range(7)]
    benchmark.extra_info["added_ms"] = 1e3 * statistics.median(samples)
    request.config.stash[Results.key].notes.append(
        f"import ortho_kernels adds {1e3 * statistics.median(samples):.1f} ms to import torch (median of {len(samples)})"
    )
    benchmark.pedantic(added, rounds=3)
