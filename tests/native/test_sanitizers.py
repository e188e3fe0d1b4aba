"""The torch-free kernels under the sanitizers, driven by driver.cpp with threads of its own."""

import subprocess

import pytest

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
    done = subprocess.run([build_kernels.driver(name, BUILDS[name])], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
