"""The CUDA C++ kernels, in a library and a namespace of their own, and why they can't serve where they can't.

The environment variable ORTHO_KERNELS_CUDA_LIBRARY names another build of the library, so that several can be compared.
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

import torch

from .. import cuda_toolkit, ops
from .kernels import KernelBackend
from .library import PACKAGE, Library

_VARIABLE = "ORTHO_KERNELS_CUDA_LIBRARY"
_asked = os.environ.get(_VARIABLE)
_NAMESPACE = "ortho_kernels_cuda"

_definitions = torch.library.Library(_NAMESPACE, "DEF")
for _schema in (*ops.SCHEMAS, ops.START_SCHEMA):
    _definitions.define(_schema)


def built_for(facts: str) -> tuple[list[tuple[int, int]], bool]:
    """Returns the compute capabilities that a library was built for, and whether it holds PTX, which runs on all."""
    return [(int(major), int(minor)) for major, minor in re.findall(r"\bsm_(\d+)(\d)a?\b", facts)], "PTX" in facts


def _facts() -> str:
    """Returns what the library says of itself, such as `nvcc 13.0 for sm_80, sm_90 + PTX`."""
    try:
        facts = ctypes.CDLL(str(library.path)).ortho_kernels_cuda_facts
    except AttributeError:
        raise RuntimeError(f"{library.path} is no build of the CUDA kernels") from None
    facts.restype = ctypes.c_char_p
    return facts().decode()


def _driver_release() -> tuple[int, int]:
    """The newest CUDA that the NVIDIA driver supports; (0, 0) without a driver."""
    version = ctypes.c_int(0)
    try:
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except OSError:
        return 0, 0
    return version.value // 1000, version.value % 1000 // 10


def _open() -> str | None:
    """The library registered; None, or the reason against it."""
    if _asked and not library.path.exists():
        return f"{_VARIABLE} is {_asked!r}, which does not exist"
    return library.reason_against


library = Library(
    Path(_asked).resolve() if _asked else PACKAGE / "_cuda.abi3.so",
    "_cuda_build_log.txt",
    "nvcc and a CUDA torch",
    ("ORTHO_KERNELS_NO_NATIVE", "ORTHO_KERNELS_NO_CUDA"),
    _facts,
)
# At import, so that a compiled step finds constants.
_against = _open()
_built_for = built_for(_facts() if _against is None else "")
_driver = _driver_release() if _against is None else (0, 0)


def has_warpgroups() -> bool:
    """Whether the kernels multiply with warpgroups on the current GPU: on Hopper, with machine code made for it."""
    return torch.cuda.get_device_capability() in cuda_toolkit.WITH_OWN.intersection(_built_for[0])


class CudaBackend(KernelBackend):
    name = "cuda"
    device_type = "cuda"
    operators = getattr(torch.ops, _NAMESPACE)

    def reason_against(self, dtype: torch.dtype) -> str | None:
        if _against is not None:
            return _against
        if (0, 0) < _driver < cuda_toolkit.OLDEST_RELEASE:
            return (
                f"the NVIDIA driver supports CUDA {cuda_toolkit.dotted(_driver)} only; the kernels need "
                f"{cuda_toolkit.dotted(cuda_toolkit.OLDEST_RELEASE)} (driver {cuda_toolkit.OLDEST_DRIVER}) or newer: "
                "update it"
            )
        if not torch.cuda.is_initialized() and not torch.cuda.is_available():
            return "no GPU that torch can use"
        capability = torch.cuda.get_device_capability()
        if capability < cuda_toolkit.OLDEST:
            return f"the GPU's compute capability is {capability[0]}.{capability[1]}; the kernels need 8.0 or newer"
        machine_code, ptx = _built_for
        if not ptx and not any(cuda_toolkit.runs_on(capability, each) for each in machine_code):
            return f"it is built for another GPU ({_facts()}); this one's is sm_{capability[0]}{capability[1]}"
        return None

    def facts(self) -> dict[str, str]:
        """How the library was built, or why it was not."""
        if _against is not None:
            return {"CUDA library": _against}
        return {"CUDA library": f"{library.path if _asked else library.path.name}, {_facts()}"}
