"""What this machine can do at best, measured beside what is held to it: float32 multiply-adds a second from registers alone
(a micro-kernel of our own, `machine_rates.cpp`), torch's sgemm, and memory's bandwidth for reading and for copying."""

from __future__ import annotations

import ctypes
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import torch

_SOURCE = Path(__file__).with_suffix(".cpp")
_KERNELS = _SOURCE.parents[1] / "csrc" / "ortho" / "cpu"
_FLAGS = ["-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fno-trapping-math", "-fno-math-errno", "-Wno-psabi",
          "-fPIC", "-shared", "-pthread", "-DORTHO_LEVEL=native", f"-I{_KERNELS}"]  # fmt: skip


@dataclass
class Rates:
    """The highest seen: floating-point operations (a multiply-add is two) and bytes a second."""

    multiply_add: float = 0.0
    sgemm: float = 0.0
    read: float = 0.0
    copy: float = 0.0


class RateMeter:
    """Measures at a given number of threads; every call of `measure` raises the rates to what it saw."""

    def __init__(self, folder: Path, threads: int, megabytes: int = 256) -> None:
        library = folder / "machine_rates.so"
        if not library.exists():
            subprocess.run(["g++", *_FLAGS, str(_SOURCE), "-o", str(library)], check=True)
        self._library = ctypes.CDLL(str(library))
        for name in ("float32_rate", "read_rate", "copy_rate"):
            getattr(self._library, name).restype = ctypes.c_double
        self.threads = threads
        self.rates = Rates()
        self._memory = torch.ones(2, megabytes * 2**20 // 8)  # far beyond every cache
        self._square = torch.randn(1536, 1536)
        self._product = torch.empty_like(self._square)

    def measure(self) -> None:
        threads, count = ctypes.c_int64(self.threads), ctypes.c_int64(self._memory.shape[1])
        source, target = (ctypes.c_void_p(row.data_ptr()) for row in self._memory)
        rates = self.rates
        # All threads must run undisturbed at once, which on a shared machine takes a few tries.
        rates.multiply_add = max(rates.multiply_add, *(self._library.float32_rate(threads) for _ in range(5)))
        rates.read = max(rates.read, self._library.read_rate(threads, source, count))
        rates.copy = max(rates.copy, self._library.copy_rate(threads, source, target, count))
        start = time.perf_counter()
        torch.mm(self._square, self._square, out=self._product)
        rates.sgemm = max(rates.sgemm, 2 * len(self._square) ** 3 / (time.perf_counter() - start))
