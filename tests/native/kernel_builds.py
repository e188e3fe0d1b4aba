"""Builds of the torch-free kernels for tests: with sanitizers, and single objects."""

import os
import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CSRC = ROOT / "csrc"
CPU = CSRC / "ortho" / "cpu"
KERNELS = CPU / "kernels.cpp"
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
# The sources that are compiled for a level, and how.
LEVELS = {"baseline": (KERNELS, [])}
if platform.machine() in ("x86_64", "AMD64"):
    LEVELS |= {
        "avx2": (KERNELS, AVX2),
        "avx512": (KERNELS, AVX512),
        "avx512_bf16": (CPU / "bfloat_kernels.cpp", [*AVX512, "-mavx512bf16"]),
    }


class Kernels:
    def __init__(self, directory, compiler):
        self.directory, self.compiler = directory, compiler

    def run(self, *arguments):
        done = subprocess.run([self.compiler, *map(str, arguments)], capture_output=True, text=True, cwd=self.directory)
        if done.returncode != 0:
            pytest.fail(done.stderr[-4000:])

    def compile(self, source, *flags, target):
        common = ["-std=c++17", "-g1", "-Wno-psabi", "-fPIC", f"-I{CSRC}"]
        self.run(*common, *flags, "-c", source, "-o", self.directory / target)
        return self.directory / target

    def level(self, name):
        source, flags = LEVELS[name]
        return source, *flags, "-fno-exceptions", f"-DORTHO_LEVEL={name}"

    def level_object(self, level):
        """Without optimization nothing is inlined away: whatever could be merged shows."""
        if shutil.which("nm") is None:
            pytest.skip("nm is not installed")
        return self.compile(*self.level(level), "-O0", target=f"{level}.o")

    def driver(self, name, flags, levels=tuple(LEVELS)):
        """driver.cpp and the kernels of these levels, compiled on all cores."""
        jobs = [(*self.level(level), *flags) for level in levels]
        compiled_once = [source for source in CPU.glob("*.cpp") if not source.name.endswith("kernels.cpp")]
        jobs += [(source, *flags) for source in [*compiled_once, Path(__file__).with_name("driver.cpp")]]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            started = [pool.submit(self.compile, *job, target=f"{name}_{i}.o") for i, job in enumerate(jobs)]
            objects = [each.result() for each in started]
        self.run(*flags, *objects, "-pthread", "-o", self.directory / name)
        return self.directory / name
