"""Instruction levels: each gives the right numbers, and none can leak into another."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from ortho_kernels.backends import cpu

SOURCE = Path(__file__).parents[2]
built = pytest.mark.skipif(cpu.library.reason_against is not None, reason=f"CPU kernels: {cpu.library.reason_against}")


def run_at(level, *command):
    environment = {**os.environ, "ORTHO_KERNELS_CPU_LEVEL": level, "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, cwd=SOURCE)


RUN_TESTS = (
    "import sys, pytest; from ortho_kernels.backends import cpu;"
    "print('level:', cpu.CpuBackend().facts()['CPU level']); sys.exit(pytest.main(sys.argv[1:]))"
)


@built
@pytest.mark.parametrize(
    "level", [pytest.param(level, marks=pytest.mark.slow if i else ()) for i, level in enumerate(cpu.cpu_levels()[:-1])]
)
def test_each_level_is_right(level):
    """The last is that of all other tests."""
    tests = [Path(__file__).with_name("test_cpu_kernels.py"), SOURCE / "tests" / "test_convolutions.py"]
    chosen = (
        "soft_orthogonality and not float64 or srip and 2-through or half_number or threads or nan or medium or added"
        " or layouts"
    )
    done = run_at(level, "-c", RUN_TESTS, "-q", "-x", "-p", "no:cacheprovider", *map(str, tests), "-k", chosen)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"level: {level}\n")


@built
def test_an_unknown_level_is_an_error():
    done = run_at("avx1024", "-c", "from ortho_kernels.backends import cpu; print(cpu.library.reason_against)")
    assert "ORTHO_KERNELS_CPU_LEVEL is 'avx1024'" in done.stdout
    assert "baseline" in done.stdout


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="only x86 has several levels")
@pytest.mark.parametrize("level", ["avx512", "avx512_bf16"])
def test_level_code_has_no_symbols_that_a_linker_could_merge(level, build_kernels):
    """A weak symbol of an AVX-512 object could be taken for all levels, and crash an older CPU."""
    nm = subprocess.run(
        ["nm", "--defined-only", "-C", build_kernels.level_object(level)], capture_output=True, text=True
    )
    visible = [line.split(maxsplit=2) for line in nm.stdout.splitlines() if line.split()[1] not in "tbdr"]
    assert [kind for _, kind, _ in visible] in (["D"], ["R"]), visible
