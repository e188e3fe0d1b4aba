"""The card, what drives it, and which of our backends serves there."""

from __future__ import annotations

import platform
import shutil
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version

import torch

from ortho_kernels import __version__
from ortho_kernels.backends.registry import BACKENDS
from ortho_kernels.backends.registry import reason_against as reason_against_backend

__all__ = ["NO_GPU", "facts", "queried", "reason_against_backend"]

NO_GPU = "no GPU that torch can use"
QUERIES = ("driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "power.limit", "power.draw")


def facts() -> dict[str, str]:
    """Versions, the card and the build, as far as they can be known; never an error."""
    known = {
        "card": "none",
        "date": time.strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "hip": str(torch.version.hip),
        "triton": _version("triton"),
        "python": platform.python_version(),
        "ortho_kernels": __version__,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        **BACKENDS["cuda"].facts(),
        **queried(),
    }
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        known |= {
            "card": card.name,
            "compute_capability": f"{card.major}.{card.minor}",
            "multiprocessors": str(card.multi_processor_count),
            "memory_gib": f"{card.total_memory / 2**30:.1f}",
            "l2_mib": f"{card.L2_cache_size / 2**20:.0f}",
        }
    return known


def queried() -> dict[str, str]:
    """What nvidia-smi says of the first card: the driver, clocks, power. Empty without it."""
    if shutil.which("nvidia-smi") is None:
        return {}
    command = ["nvidia-smi", f"--query-gpu={','.join(QUERIES)}", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    names = ("driver", *QUERIES[1:])
    return dict(zip(names, (value.strip() for value in done.stdout.splitlines()[0].split(",")), strict=False))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
