"""Builds of the torch-free kernels for tests: with sanitizers, and single objects."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CSRC = ROOT / "csrc"


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
        own = ["-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"] if level == "avx512" else []
        source = CSRC / "ortho" / "cpu_kernels.cpp"
        self.run("-std=c++17", "-Wno-psabi", "-fPIC", *flags, *own, f"-DORTHO_LEVEL={level}", "-c", source, "-o", target)
        return target

    def driver(self, name, flags):
        """The torch-free kernels of the baseline level (on x86 all levels, which then are the same code), and driver.cpp."""
        program = self.directory / name
        objects = []
        common = ["-std=c++17", "-O1", "-g1", "-Wno-psabi", "-DORTHO_BASELINE_ONLY", *flags]
        sources = [p for p in (CSRC / "ortho").glob("*.cpp") if p.name != "cpu_kernels.cpp"]
        commands = [["-DORTHO_LEVEL=baseline", CSRC / "ortho" / "cpu_kernels.cpp"]]
        commands += [[source] for source in [*sources, Path(__file__).with_name("driver.cpp")]]
        running = []
        for i, command in enumerate(commands):
            objects.append(self.directory / f"{name}_{i}.o")
            line = [self.compiler, *common, f"-I{CSRC}", *map(str, command), "-c", "-o", str(objects[-1])]
            running.append(subprocess.Popen(line, stderr=subprocess.PIPE, text=True))
            if len(running) >= 2 + 1:
                self._wait(running)
        while running:
            self._wait(running)
        self.run(*flags, *objects, "-pthread", "-o", program)
        return program

    @staticmethod
    def _wait(running):
        process = running.pop(1 if len(running) > 1 else 0)
        _, errors = process.communicate()
        if process.returncode != 0:
            pytest.fail(errors[-4000:])


@pytest.fixture(scope="session")
def build_kernels(tmp_path_factory):
    compiler = next((c for c in ("g++", "clang++", "c++") if shutil.which(c)), None)
    if compiler is None:
        pytest.skip("no C++ compiler")
    return Kernels(tmp_path_factory.mktemp("kernels"), compiler)
