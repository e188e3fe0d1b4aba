"""The torch-free kernels under the sanitizers, driven by driver.cpp with threads of its own."""

import os
import subprocess

import pytest

from ortho_kernels.backends import cpu

BUILDS = {
    "addresses": ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "threads": ["-O1", "-fsanitize=thread"],
}
pytestmark = pytest.mark.slow  # to build


@pytest.fixture(scope="module", params=BUILDS)
def driver(request, build_kernels, tmp_path_factory):
    folder, flags = tmp_path_factory.mktemp("probe"), BUILDS[request.param]
    (folder / "probe.cpp").write_text("int main() { return 0; }\n")
    compiler = build_kernels.compiler
    command = [compiler, *flags, folder / "probe.cpp", "-o", folder / "probe"]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip(f"{compiler} has no {flags[1]}")
    if subprocess.run([folder / "probe"], capture_output=True).returncode != 0:
        pytest.skip(f"programs with {flags[1]} don't run here")
    return build_kernels.driver(request.param, flags)


@pytest.mark.parametrize("level", cpu.cpu_levels() or ["baseline"])
def test_driver_is_clean(driver, level):
    environment = {**os.environ, "ORTHO_KERNELS_CPU_LEVEL": level}
    done = subprocess.run([driver], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
