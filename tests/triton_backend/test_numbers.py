"""The kernels' numbers, in triton's interpreter: the tests in `interpreted/`, in processes of their own."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

pytest.importorskip("triton", reason="triton is not installed")
pytestmark = pytest.mark.skipif(
    Version(version("triton")) < Version("3.7") and Version(version("numpy")) >= Version("2.5"),
    reason="triton 3.6's interpreter makes numbers of arrays with one entry, which numpy 2.5 refuses",
)
FILES = sorted(Path(__file__).with_name("interpreted").glob("test_*.py"))


@pytest.fixture(scope="module")
def finished():
    environment = os.environ | {"TRITON_INTERPRET": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

    def run(file):
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(file)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(FILES, pool.map(run, FILES), strict=True))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_in_the_interpreter(finished, file):
    result = finished[file]
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert " passed" in result.stdout
