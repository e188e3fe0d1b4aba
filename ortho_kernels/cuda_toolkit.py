"""nvcc: where it is, which GPUs it compiles for, and with which flags. For setup.py, `doctor` and the compilation tests.

Imports the standard library alone: setup.py loads this file before the package can be imported.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

# The kernels use instructions of 8.0 (Ampere) and later; each architecture with the first CUDA release that knows it.
ARCHITECTURES = {
    (8, 0): (11, 0),
    (8, 6): (11, 1),
    (8, 9): (11, 8),
    (9, 0): (11, 8),
    (10, 0): (12, 8),
    (12, 0): (12, 8),
}
OLDEST_RELEASE = (12, 1)  # of toolkits and of drivers: the first whose kernels take arguments of more than 4 KB
OLDEST_DRIVER = 530  # the first that supports it
OLDEST = min(ARCHITECTURES)
VIRTUAL = f"compute_{OLDEST[0]}{OLDEST[1]}"
WITH_OWN = {(9, 0)}  # whose own instructions the kernels use: those of warpgroups, which no other generation has
FLAGS = [
    "-std=c++17",
    "-O3",
    "--expt-relaxed-constexpr",
    "--threads=0",
    "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra",
]

Architecture = tuple[int, int]


def machine(architecture: Architecture) -> str:
    """nvcc's name of an architecture's machine code."""
    return f"sm_{architecture[0]}{architecture[1]}{'a' * (architecture in WITH_OWN)}"


def virtual(architecture: Architecture) -> str:
    """nvcc's name of the form that an architecture's machine code is made from."""
    return machine(architecture).replace("sm_", "compute_") if architecture in WITH_OWN else VIRTUAL


class ToolkitError(Exception):
    """The CUDA toolkit can't serve; the message says why and what to do."""


@dataclass(frozen=True)
class Targets:
    """Machine code for these architectures and, with `ptx`, a portable form from which newer GPUs compile their own.

    The portable form has the instructions of the oldest architecture. It is made once and serves all but those whose own
    instructions the kernels use.
    """

    architectures: tuple[Architecture, ...]
    ptx: bool = True

    def flags(self) -> list[str]:
        own = [f"-gencode=arch={virtual(each)},code={machine(each)}" for each in self.architectures if each in WITH_OWN]
        codes = [machine(each) for each in self.architectures if each not in WITH_OWN] + [VIRTUAL] * self.ptx
        return [f"-gencode=arch={VIRTUAL},code=[{','.join(codes)}]"] * bool(codes) + own

    def __str__(self) -> str:
        return ", ".join(map(machine, self.architectures)) + (" + PTX" if self.ptx else "")


@dataclass(frozen=True)
class Toolkit:
    """An nvcc and the folder of its toolkit."""

    nvcc: Path

    @cached_property
    def release(self) -> tuple[int, int]:
        said = _output([self.nvcc, "--version"])
        found = re.search(r"release (\d+)\.(\d+)", said)
        if not found:
            raise ToolkitError(f"{self.nvcc} --version names no release; it said: {said.strip()[:200]!r}")
        return int(found[1]), int(found[2])

    @cached_property
    def root(self) -> Path:
        """nvcc's own word for it: the path may be a wrapper's."""
        found = re.search(
            r"^#\$ _HERE_=(.+)$", _output([self.nvcc, "--dryrun", "-x", "cu", "-c", os.devnull]), re.MULTILINE
        )
        return Path(found[1]).parent if found else self.nvcc.resolve().parent.parent

    @cached_property
    def static_runtime(self) -> Path:
        """The folder of libcudart_static.a."""
        for folder in ("lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"):
            if (self.root / folder / "libcudart_static.a").exists():
                return self.root / folder
        raise ToolkitError(f"{self.root} has no libcudart_static.a (part of the package cuda-cudart-dev)")

    def supported(self) -> tuple[Architecture, ...]:
        """The architectures that this release compiles for, oldest first."""
        if self.release < OLDEST_RELEASE:
            raise ToolkitError(
                f"{self.nvcc} is of CUDA {dotted(self.release)}; {dotted(OLDEST_RELEASE)} or newer is needed"
            )
        return tuple(each for each, since in ARCHITECTURES.items() if since <= self.release)


def find_toolkit() -> Toolkit:
    """The nvcc of $CUDA_HOME or $CUDA_PATH, the first on the PATH, or that of /usr/local/cuda."""
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        home = os.environ.get(variable)
        if home:
            nvcc = Path(home, "bin", "nvcc")
            if not nvcc.exists():
                raise ToolkitError(f"{variable} is {home!r}, but {nvcc} does not exist")
            return Toolkit(nvcc)
    found = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if found is None:
        raise ToolkitError("nvcc was not found (looked in $CUDA_HOME, $CUDA_PATH, the PATH, /usr/local/cuda)")
    return Toolkit(Path(found))


def listed_targets(text: str, supported: Sequence[Architecture]) -> Targets:
    """What TORCH_CUDA_ARCH_LIST asks for, such as `8.0;9.0+PTX`; what is older than the kernels need is left out."""
    architectures, ptx = [], False
    for word in re.split(r"[;,\s]+", text.strip()):
        found = re.fullmatch(r"(\d+)\.(\d)[af]?(\+PTX)?", word)
        if not found:
            raise ToolkitError(
                f"TORCH_CUDA_ARCH_LIST is {text!r}; expected a list such as '8.0 9.0+PTX', and {word!r} is none"
            )
        architecture = int(found[1]), int(found[2])
        ptx = ptx or bool(found[3])
        if architecture >= OLDEST:
            best = _best_for(architecture, supported)
            architectures.append(best)
            ptx = ptx or best[0] != architecture[0]
    if not architectures:
        raise ToolkitError(f"TORCH_CUDA_ARCH_LIST is {text!r}; the kernels need {dotted(OLDEST)} or newer")
    return Targets(tuple(sorted(set(architectures))), ptx)


def device_targets(capabilities: Sequence[Architecture], supported: Sequence[Architecture]) -> Targets:
    """Machine code for the GPUs of this machine."""
    able = [each for each in capabilities if each >= OLDEST]
    if capabilities and not able:
        best = max(capabilities)
        raise ToolkitError(
            f"the GPU's compute capability is {dotted(best)}; the kernels need {dotted(OLDEST)} or newer"
        )
    return Targets(tuple(sorted({_best_for(each, supported) for each in able})))


def runs_on(capability: Architecture, architecture: Architecture) -> bool:
    """Whether a GPU runs the machine code of an architecture: of the same major number, and of no higher minor one."""
    return architecture[0] == capability[0] and architecture <= capability


def _best_for(capability: Architecture, supported: Sequence[Architecture]) -> Architecture:
    """The best architecture to compile for, for this GPU."""
    able = [each for each in supported if runs_on(capability, each)]
    # A generation that nvcc doesn't know runs the portable form of the last that it does.
    return max(able) if able else max(each for each in supported if each <= capability)


def dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _output(command: Sequence[str | Path]) -> str:
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except OSError as error:
        raise ToolkitError(f"{command[0]} can't be run: {error}") from None
    return done.stdout
