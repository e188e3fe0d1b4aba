"""The baseline on another instruction set, NEON: cross-compiled, and run by an emulator, where both are installed."""

import shutil
import subprocess

import pytest
from kernel_builds import Kernels

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64-static"


def test_driver_agrees_on_aarch64(tmp_path):
    if shutil.which(COMPILER) is None or shutil.which(EMULATOR) is None:
        pytest.skip("no aarch64 compiler or emulator (Debian: g++-aarch64-linux-gnu, qemu-user-static)")
    driver = Kernels(tmp_path, COMPILER).driver("neon", ["-O2", "-static"], ["baseline"])
    done = subprocess.run([EMULATOR, driver], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert "numbers agree" in done.stdout
