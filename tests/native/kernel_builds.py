"""Builds of the torch-free kernels for tests: with sanitizers, and single objects."""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CSRC = ROOT / "csrc"
AVX512 = ["-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]


class Kernels:
    def __init__(self, directory, compiler):
        self.directory, self.compiler = directory, compiler

    def run(self, *arguments):
        done = subprocess.run([self.compiler, *map(str, arguments)], capture_output=True, text=True, cwd=self.directory)
        if done.returncode != 0:
            pytest.fail(done.stderr[-4000:])

    def level_object(self, level="avx512", flags=("-O0",)):
        """Without optimization nothing is inlined away: whatever could be merged shows."""
        if shutil.which("nm") is None:
            pytest.skip("nm is not installed")
        target = self.directory / f"{level}.o"
        own = AVX512 if level == "avx512" else []
        source = CSRC / "ortho" / "cpu_kernels.cpp"
        common = ["-std=c++17", "-Wno-psabi", "-fPIC", "-fno-exceptions", f"-DORTHO_LEVEL={level}"]
        self.run(*common, *flags, *own, "-c", source, "-o", target)
        return target

    def driver(self, name, flags):
        """driver.cpp and all kernels at the baseline level, compiled on all cores."""
        common = ["-std=c++17", "-g1", "-Wno-psabi", "-DORTHO_BASELINE_ONLY", f"-I{CSRC}", *flags, "-c"]
        kernels = CSRC / "ortho" / "cpu_kernels.cpp"
        others = [source for source in (CSRC / "ortho").glob("*.cpp") if source != kernels]
        sources = [kernels, Path(__file__).with_name("driver.cpp"), *others]
        objects = [self.directory / f"{name}_{source.stem}.o" for source in sources]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            compile_one = lambda source, target: self.run(*common, "-DORTHO_LEVEL=baseline", source, "-o", target)  # noqa: E731
            list(pool.map(compile_one, sources, objects))
        self.run(*flags, *objects, "-pthread", "-o", self.directory / name)
        return self.directory / name
