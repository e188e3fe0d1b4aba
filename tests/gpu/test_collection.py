"""What `pytest -m gpu` would run, seen from a machine without a GPU."""

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def collected(*arguments):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q", *arguments]
    files = [TESTS / "test_srip.py", TESTS / "gpu" / "test_streams_and_graphs.py"]
    done = subprocess.run([*command, *map(str, files)], cwd=TESTS.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_the_numeric_suite_runs_on_every_backend_of_a_gpu():
    names = collected("-m", "gpu")
    for backend in ("cuda-gpu", "triton-gpu", "torch-gpu"):
        assert any("test_srip.py" in name and backend in name for name in names)
    assert any("captured_step" in name and "cuda-gpu" in name for name in names)
    assert all("-gpu" in name for name in names)
