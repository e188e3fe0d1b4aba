"""The torch-free kernels under the sanitizers, driven by driver.cpp with threads of its own."""

import os
import subprocess

import pytest

from ortho_kernels.backends import cpu

BUILDS = {
    "addresses": ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "threads": ["-O1", "-fsanitize=thread"],
}


@pytest.mark.parametrize("name", BUILDS)
def test_driver_is_clean(name, build_kernels, tmp_path):
    probe = tmp_path / "probe.cpp"
    probe.write_text("int main() { return 0; }\n")
    compiler = build_kernels.compiler
    if subprocess.run([compiler, *BUILDS[name], probe, "-o", tmp_path / "probe"], capture_output=True).returncode != 0:
        pytest.skip(f"{compiler} has no {BUILDS[name][1]}")
    if subprocess.run([tmp_path / "probe"], capture_output=True).returncode != 0:
        pytest.skip(f"programs with {BUILDS[name][1]} don't run here")
    driver = build_kernels.driver(name, BUILDS[name])
    for level in cpu.cpu_levels() or ["baseline"]:
        environment = {**os.environ, "ORTHO_KERNELS_CPU_LEVEL": level}
        done = subprocess.run([driver], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{level}: {done.stdout}{done.stderr[-4000:]}"
